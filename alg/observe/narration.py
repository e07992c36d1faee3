"""The story of a call in sentences: each message, what became of it, and what it meant."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Iterator, Sequence

from alg.observe.entry import Entry, MappingEntry
from alg.observe.printable import Line
from alg.observe.words import (
    change_name,
    edit_words,
    mapping_words,
    meaning,
    message_name,
    shown,
    verdict_words,
)

WIDTH = 80
_STYLES = {"rewritten": "bold green", "dropped": "bold red", "held": "bold yellow"}


def narrate(entries: Sequence[Entry]) -> Iterator[Line]:
    """Yields the lines of a story, all of them safe to show."""
    day, call_id = None, None
    for entry in entries:
        moment = datetime.datetime.fromtimestamp(entry.time, datetime.UTC)
        if moment.date() != day:
            day = moment.date()
            yield Line(f"{day.isoformat()} (UTC)", "bold")
        if entry.is_message and entry.call_id and entry.call_id != call_id:
            call_id = entry.call_id
            yield from _wrapped(f"call {shown(call_id)}", "bold", indent=0)
        clock = moment.time().isoformat("milliseconds")
        if entry.is_message:
            yield from _message(entry, clock)
        else:
            yield Line(f"{clock}  {change_name(entry)}", "bold")
        for text, style in _mappings(entry):
            yield from _wrapped(text, style)


def _message(entry: Entry, clock: str) -> Iterator[Line]:
    about = f" to {shown(entry.method)}" if entry.status and entry.method else ""
    yield Line(f"{clock}  {message_name(entry)}{about}", _STYLES.get(entry.verdict, "bold"))
    ends = f"{shown(entry.source)} -> {shown(entry.destination)}"
    yield from _wrapped(f"{ends}, {shown(entry.transport)}, {shown(entry.direction)}")
    for sentence in meaning(entry):
        yield from _wrapped(sentence, "yellow")
    if entry.verdict != "rewritten":
        yield from _wrapped(verdict_words(entry), "" if entry.verdict == "unchanged" else "red")
        return
    yield from _wrapped(f"rewritten{_duration(entry)}, {_way_on(entry)}")
    for fields, change in edit_words(entry):
        yield from _wrapped(f"{fields}: {change}", "green", indent=8)


def _duration(entry: Entry) -> str:
    """Says how long a message took; in a capture nothing was measured."""
    if not entry.took:
        return ""
    kernel = f" ({entry.commit / 1000:.1f} ms in the kernel)" if entry.commit else ""
    return f" in {entry.took / 1000:.1f} ms{kernel}"


def _way_on(entry: Entry) -> str:
    """Says what a message looks like behind the gateway: its other end, or both."""
    source, destination = shown(entry.left_source or "-"), shown(entry.left_destination or "-")
    if entry.direction == "outbound":
        return f"sent on from {source}"
    if entry.direction == "inbound":
        return f"delivered to {destination}"
    return f"sent on as {source} -> {destination}"


def _mappings(entry: Entry) -> Iterator[tuple[str, str]]:
    for mapping in entry.opened:
        yield f"opened {mapping_words(mapping)}", "cyan"
    for mapping in entry.ending:
        yield f"{mapping_words(mapping)} is given up, {_when(mapping)}", "cyan"
    for mapping in entry.closed:
        yield f"closed {mapping_words(mapping)}", "cyan"


def _when(mapping: MappingEntry) -> str:
    """Says when; packets that are late still arrive until then."""
    return f"it closes in {mapping.expires_in or 0:.0f} s"


def _wrapped(text: str, style: str = "", indent: int = 4) -> Iterator[Line]:
    margin = " " * indent
    for line in textwrap.wrap(
        text, WIDTH, initial_indent=margin, subsequent_indent=margin + "  ", break_on_hyphens=False
    ):
        yield Line(line, style)
