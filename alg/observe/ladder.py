"""A call as a ladder diagram: who is in it, and what goes between them, rung by rung.

The gateway is two lanes, because a message has two forms: from the phone to the internal lane as it
came, from the external lane to the server as it left. Media is drawn once it is agreed on, each
direction with the packets that were counted. `alg.observe.ladder_text` and
`alg.observe.ladder_svg` render what is said here; all text is safe to show by then.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from alg.observe.entry import Entry, MappingEntry, StreamEntry
from alg.observe.words import (
    change_name,
    edit_words,
    mapping_words,
    meaning,
    message_name,
    shown,
    verdict_words,
)

MAX_DRAWN = 500
"""Of more rows the latest are drawn: a picture that nobody can look at helps nobody."""

MAX_LINES = 20
"""Edits below an arrow, and notes; strangers write messages that need hundreds."""

MAX_HOSTS = 2
"""Lanes on either side; what further hosts send is drawn at the last of them."""


LineT = TypeVar("LineT")


class Tone(enum.Enum):
    """How a rung looks."""

    REWRITTEN = "rewritten"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    DROPPED = "dropped"
    MEDIA = "media"
    SILENT = "silent"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Lane:
    """A vertical line: what it stands for, and its address; "" where that is not known."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one lane to another, by their numbers; the longest of the labels that fits is shown."""

    start: int
    end: int
    labels: tuple[str, ...]

    def label(self, room: int) -> str:
        """Returns what fits into so many characters."""
        for label in self.labels:
            if len(label) <= room:
                return label
        return self.labels[-1][: max(0, room - 1)] + "~"


@dataclass(frozen=True, slots=True)
class Rung:
    """One thing that happened, `time` seconds after the first; None where it goes on.

    `edits` are names of fields and what was done to them ("old -> new"), `notes` sentences.
    """

    time: float | None
    tone: Tone
    arrows: tuple[Arrow, ...] = ()
    edits: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ladder:
    """The lanes, and the rungs from top to bottom.

    The gateway's lanes are `inner`, the internal one, and the one behind it.
    """

    title: str
    lanes: tuple[Lane, ...]
    inner: int
    rungs: tuple[Rung, ...]

    def is_inside(self, arrow: Arrow) -> bool:
        """Whether an arrow is what the gateway does, between its two lanes."""
        return {arrow.start, arrow.end} == {self.inner, self.inner + 1}


def draw_ladder(
    title: str, entries: Sequence[Entry], streams: Iterable[StreamEntry] = ()
) -> Ladder:
    """Makes the ladder of a story; `streams` are those of its calls, with what was counted."""
    crossing = [each for each in entries if not each.is_message or each.direction != "none"]
    drawn = crossing[-MAX_DRAWN:]
    sides = _Sides(drawn)
    rungs = tuple(_rungs(drawn, sides, list(streams)))
    if left := len(crossing) - len(drawn):
        rungs = (Rung(None, Tone.CHANGE, notes=(f"{left} earlier ones are not drawn",)), *rungs)
    return Ladder(shown(title), sides.lanes, sides.inner, rungs)


class _Sides:
    """Which host has which lane."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._phones: dict[str, int] = {}
        self._remotes: dict[str, int] = {}
        external = ""
        for entry in entries:
            if not entry.is_message:
                continue
            for lanes, hosts in ((self._phones, _phones(entry)), (self._remotes, _remotes(entry))):
                for host in hosts:
                    lanes.setdefault(host, min(len(lanes), MAX_HOSTS - 1))
            external = external or _external(entry)
        phones, remotes = list(self._phones)[:MAX_HOSTS], list(self._remotes)[:MAX_HOSTS]
        self.inner = len(phones) or 1
        self.lanes = (
            *(Lane("phone", shown(host)) for host in phones or ("",)),
            Lane("internal", "gateway"),
            Lane("external", shown(external)),
            *(Lane("server", shown(host)) for host in remotes),
        )

    def phone(self, endpoint: str | None) -> int:
        """Returns the lane of a phone; of one that is not known the first."""
        return self._phones.get(_host(endpoint), 0)

    def remote(self, endpoint: str | None) -> int:
        """Returns the lane of a remote; where there is none the gateway's external one."""
        lane = self.inner + 2 + self._remotes.get(_host(endpoint), 0)
        return min(lane, len(self.lanes) - 1)


def _host(endpoint: str | None) -> str:
    return (endpoint or "").rpartition(":")[0].strip("[]")


def _phones(entry: Entry) -> Iterator[str]:
    if entry.direction != "inbound":
        yield _host(entry.source)
    if entry.direction != "outbound" and entry.left_destination:
        yield _host(entry.left_destination)


def _remotes(entry: Entry) -> Iterator[str]:
    if entry.direction != "hairpin":
        yield _host(entry.source if entry.direction == "inbound" else entry.destination)


def _external(entry: Entry) -> str:
    """Returns the address that stands for the phone."""
    return _host(entry.left_source if entry.direction == "outbound" else entry.destination)


def _rungs(entries: Sequence[Entry], sides: _Sides, streams: list[StreamEntry]) -> Iterator[Rung]:
    """Yields the rungs of each entry, and media behind the answer that agrees on it.

    Media whose offer is not remembered comes first, and what is given up before it is agreed on
    never flows.
    """
    counted = {each.internal: each for each in streams if each.kind != "rtcp"}
    opened = {each.internal for entry in entries for each in entry.opened}
    for internal, stream in counted.items():
        if internal not in opened:
            yield from _media(stream, sides)
    waiting: dict[str, StreamEntry] = {}
    is_agreed = False
    for entry in entries:
        if is_agreed and entry.method != "ACK":
            for stream in waiting.values():
                yield from _media(stream, sides)
            waiting, is_agreed = {}, False
        yield from _event(entry, sides, entry.time - entries[0].time)
        for mapping in entry.opened:
            if mapping.kind in ("rtp", "media"):
                waiting[mapping.internal] = counted.get(mapping.internal) or _stream(mapping)
        for mapping in (*entry.ending, *entry.closed):
            waiting.pop(mapping.internal, None)
        is_agreed |= _agrees(entry)
    for stream in waiting.values() if is_agreed else ():
        yield from _media(stream, sides)


def _agrees(entry: Entry) -> bool:
    """Whether media may flow from now on."""
    is_early = entry.status is not None and entry.status < 200
    return "answered" in entry.steps or ("answer" in entry.steps and not is_early)


def _stream(mapping: MappingEntry) -> StreamEntry:
    """Returns a stream of which only the mapping is known."""
    return StreamEntry(mapping.kind, mapping.internal, mapping.external)


def _event(entry: Entry, sides: _Sides, time: float) -> Iterator[Rung]:
    if not entry.is_message:
        yield Rung(time, Tone.CHANGE, notes=_few([change_name(entry), *_mappings(entry)]))
        return
    tone = _tone(entry)
    labels, inner, outer = tuple(_labels(entry)), sides.inner, sides.inner + 1
    edits, more = _split(list(edit_words(entry)), "edits")
    notes = _few([*more, *_notes(entry)])
    if entry.direction == "inbound":
        came = Arrow(sides.remote(entry.source), outer, labels)
        inside = Arrow(outer, inner, _done(entry))
        left = Arrow(inner, sides.phone(entry.left_destination), labels)
    else:
        came = Arrow(sides.phone(entry.source), inner, labels)
        inside = Arrow(inner, outer, _done(entry))
        left = Arrow(outer, sides.remote(entry.left_destination), labels)
    if tone is Tone.DROPPED:
        yield Rung(time, tone, (came, inside), edits, notes)
    elif entry.direction == "hairpin":
        yield Rung(time, tone, (came, inside))
        back = Arrow(inner, sides.phone(entry.left_destination), labels)
        yield Rung(None, tone, (back,), edits, notes)
    else:
        yield Rung(time, tone, (came, inside, left), edits, notes)


def _few(notes: list[str]) -> tuple[str, ...]:
    drawn, more = _split(notes, "of these")
    return (*drawn, *more)


def _split(lines: list[LineT], what: str) -> tuple[tuple[LineT, ...], list[str]]:
    """Returns the lines that are drawn, and the note that says how many are not."""
    left = len(lines) - MAX_LINES
    return tuple(lines[:MAX_LINES]), [f"and {left} more {what}"] if left > 0 else []


def _tone(entry: Entry) -> Tone:
    if entry.verdict in ("dropped", "held"):
        return Tone.DROPPED
    if _REFUSALS & set(entry.steps):
        return Tone.REFUSED
    return Tone.REWRITTEN if entry.verdict == "rewritten" else Tone.UNCHANGED


_REFUSALS = {"rolled back", "refused"}


def _labels(entry: Entry) -> Iterator[str]:
    """Yields names of a message, the longest first."""
    name, method = message_name(entry), shown(entry.method or "")
    description = next((f" ({step})" for step in entry.steps if step in ("offer", "answer")), "")
    brief = str(entry.status) if entry.status else name
    if entry.status and entry.method != "INVITE":
        yield f"{name} to {method}"
        yield f"{brief} to {method}"
    yield f"{name}{description}"
    yield f"{brief}{description}"
    yield brief


def _done(entry: Entry) -> tuple[str, ...]:
    """Says what the gateway did, in a word or two."""
    if entry.verdict == "rewritten":
        count = len(entry.edits)
        return (f"{count} edit{'s' if count > 1 else ''}", f"*{count}")
    return ("",) if entry.verdict == "unchanged" else (shown(entry.verdict), "")


def _notes(entry: Entry) -> Iterator[str]:
    """Yields what the arrows do not say."""
    if _REFUSALS & set(entry.steps):
        yield from meaning(entry)
    if entry.verdict != "rewritten" and entry.reason != "nothing-to-change":
        yield verdict_words(entry)
    yield from _mappings(entry)


def _mappings(entry: Entry) -> Iterator[str]:
    for what, mappings in (
        ("opened", entry.opened),
        ("gives up", entry.ending),
        ("closed", entry.closed),
    ):
        for mapping in mappings:
            if mapping.kind != "rtcp":
                yield f"{what} {mapping_words(mapping)}"


def _media(stream: StreamEntry, sides: _Sides) -> Iterator[Rung]:
    """Yields a rung for each direction of a stream."""
    phone, remote = sides.phone(stream.internal), sides.remote(stream.remote)
    what = shown(stream.media or stream.kind)
    ends = (each for each in (stream.internal, stream.external, stream.remote) if each)
    way = " <-> ".join(map(shown, dict.fromkeys(ends)))
    silent = (shown(stream.silent),) if stream.silent else ()
    for start, end, count, notes in (
        (phone, remote, stream.sent, (way,)),
        (remote, phone, stream.received, silent),
    ):
        is_silent = count == 0 and (stream.sent or stream.received)
        packets = "" if count is None else f"{count} packets"
        labels = (f"{what} {packets}".strip(), packets or what)
        yield Rung(
            None,
            Tone.SILENT if is_silent else Tone.MEDIA,
            (Arrow(start, end, labels),),
            notes=notes,
        )
