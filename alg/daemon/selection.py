"""Which rows a request wants: its filters, read and checked once for every kind of row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import NamedTuple, TypeVar

from alg.io.control import RequestRefused
from alg.observe.story import is_named
from nat_table.binding import Kind
from nat_table.endpoint import Endpoint, parse_host
from nat_table.lease import Source

FILTERS = ("internal", "call_id", "kind", "source")

_EnumT = TypeVar("_EnumT", bound=Enum)


class Selection(NamedTuple):
    """What a request has said; None where it did not, and port 0 where it names a host alone."""

    host: str | None = None
    port: int = 0
    call_id: str | None = None
    kind: Kind | None = None
    source: Source | None = None

    def has(self, internal: Endpoint) -> bool:
        """Tells whether an internal endpoint is of the host, and of its port if there is one."""
        return self.host in (None, internal.address) and self.port in (0, internal.port)

    def has_call(self, call_id: str) -> bool:
        """Tells whether a call is of the Call-ID, or begins so if that is cut by a "~"."""
        return self.call_id is None or is_named(call_id, self.call_id)


def parse_selection(request: Mapping[str, object], heeded: Collection[str]) -> Selection:
    """Reads the filters of a request; raises RequestRefused for what is none, or is not heeded."""
    given = {key: request[key] for key in FILTERS if request.get(key) is not None}
    for key, value in given.items():
        if key not in heeded:
            raise RequestRefused(f"these rows cannot be chosen by {key}")
        if not isinstance(value, str):
            raise RequestRefused(f"{key} is not a text")
    texts = {key: str(value) for key, value in given.items()}
    host, port = _parse_internal(texts["internal"]) if "internal" in texts else (None, 0)
    return Selection(
        host,
        port,
        texts.get("call_id"),
        _parse_word(Kind, "kind", texts),
        _parse_word(Source, "source", texts),
    )


def _parse_internal(text: str) -> tuple[str, int]:
    try:
        return parse_host(text)
    except ValueError:
        raise RequestRefused(
            f"internal is {text[:64]}, allowed is such as 10.0.0.20 or 10.0.0.20:5060"
        ) from None


def _parse_word(words: type[_EnumT], key: str, texts: Mapping[str, str]) -> _EnumT | None:
    if key not in texts:
        return None
    try:
        return words(texts[key])
    except ValueError:
        allowed = ", ".join(word.value for word in words)
        raise RequestRefused(f"{key} is {texts[key][:64]}, allowed is one of {allowed}") from None
