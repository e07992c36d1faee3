"""The rows of a story read back, for whoever tells or draws it.

They may come from another release of the gateway: what it did not know has a default here, and what
is not known here is left out. All text of theirs is to be escaped before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec


class MappingEntry(msgspec.Struct, frozen=True):
    """A mapping that was opened, closed or given up; `expires_in` in seconds."""

    kind: str
    transport: str
    internal: str
    external: str
    remote: str | None = None
    call_id: str | None = None
    expires_in: float | None = None


class EditEntry(msgspec.Struct, frozen=True):
    """What stood in a field, and what took its place."""

    what: str
    old: str
    new: str


class Entry(msgspec.Struct, frozen=True):
    """One row of a story: a message, or changes without one; see `alg.observe.story`."""

    event: str
    time: float
    what: str = ""
    direction: str = "none"
    transport: str = "udp"
    source: str = ""
    destination: str = ""
    left_source: str | None = None
    left_destination: str | None = None
    method: str | None = None
    status: int | None = None
    call_id: str | None = None
    verdict: str = ""
    reason: str = ""
    detail: str = ""
    edits: tuple[EditEntry, ...] = ()
    steps: tuple[str, ...] = ()
    opened: tuple[MappingEntry, ...] = ()
    closed: tuple[MappingEntry, ...] = ()
    ending: tuple[MappingEntry, ...] = ()
    took: int = 0
    commit: int | None = None

    @property
    def is_message(self) -> bool:
        """Whether this is a message, and no change without one."""
        return self.event == "message"

    def edited(self) -> dict[tuple[str, str], list[str]]:
        """Returns the fields in which the same text took the same text's place."""
        fields: dict[tuple[str, str], list[str]] = {}
        for edit in self.edits:
            names = fields.setdefault((edit.old.strip(), edit.new.strip()), [])
            if edit.what not in names:
                names.append(edit.what)
        return fields


class StreamEntry(msgspec.Struct, frozen=True):
    """A media stream of `show calls`: packets each way, None where nobody has counted."""

    kind: str
    internal: str
    external: str
    remote: str | None = None
    media: str | None = None
    sent: int | None = None
    received: int | None = None
    silent: str | None = None


def parse_entries(rows: Iterable[Mapping[str, object]]) -> list[Entry]:
    """Parses rows of a story; raises ValueError, one sentence."""
    try:
        return [msgspec.convert(row, Entry) for row in rows]
    except msgspec.ValidationError as error:
        raise ValueError(f"a row of the gateway is not understood: {error}") from None


def parse_streams(calls: Iterable[Mapping[str, object]]) -> list[StreamEntry]:
    """Parses the streams in rows of `show calls`; raises ValueError, as ValidationError is one."""
    return [
        msgspec.convert(stream, StreamEntry)
        for call in calls
        for stream in msgspec.convert(call.get("streams", ()), list[object])
    ]
