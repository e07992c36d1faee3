"""Start lines: what each says, read once however often it comes (RFC 3261 §7.1, §7.2)."""

from __future__ import annotations

from typing import Final

from alg.sip.grammar import REQUEST_LINE, START_LINE
from alg.sip.header_line import LONGEST, MOST
from alg.sip.uri import SipUri, parse_uri


class StartLine:
    """What a start line says; `status` is 0 in a request.

    `uri_start` and `uri_end` are where the Request-URI stands.
    """

    __slots__ = (
        "_is_uri_read",
        "_text",
        "_uri",
        "is_request",
        "method",
        "status",
        "uri_end",
        "uri_start",
    )

    is_request: bool
    method: bytes
    status: int
    uri_start: int
    uri_end: int
    _text: bytes
    _is_uri_read: bool
    _uri: SipUri | None

    def __init__(
        self, text: bytes, method: bytes | None, status: int, uri: tuple[int, int]
    ) -> None:
        self.is_request = method is not None
        self.method = b"" if method is None else method
        self.status = status
        self.uri_start, self.uri_end = uri
        self._text = text
        self._is_uri_read = method is None
        self._uri = None

    def uri(self) -> SipUri | None:
        """Returns the Request-URI, if it is a SIP URI."""
        if not self._is_uri_read:
            self._is_uri_read = True
            self._uri = parse_uri(self._text, self.uri_start, self.uri_end)
        return self._uri


START_LINES: Final[dict[bytes, StartLine]] = {}
"""Those that came lately, by their text."""


def read_start_line(text: bytes) -> StartLine | None:
    """Reads a start line without its line break, and remembers it; None where it is none."""
    match = REQUEST_LINE.fullmatch(text)
    if match is not None:
        line = StartLine(text, match[1], 0, match.span(2))
    else:
        match = START_LINE.fullmatch(text)
        if match is None:
            return None
        status = match[3]
        line = StartLine(text, match[1], 0 if status is None else int(status), match.span(2))
    if len(text) <= LONGEST:
        if len(START_LINES) >= MOST:
            START_LINES.clear()
        START_LINES[text] = line
    return line
