"""Finding the session descriptions in a body (RFC 2046 §5.1, RFC 5621).

A body is SDP itself, or a multipart whose parts are looked into in turn, to a small depth. Parts of
another type, encoded parts and anything signed are not entered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_DEPTH = 4
MAX_PARTS = 32

_BOUNDARY = re.compile(
    rb';\s*boundary\s*=\s*(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE
)
_PART_HEAD = re.compile(rb"(?:[^\s:][^\r\n:]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*)*\r?\n")
_PART_TYPE = re.compile(
    rb"^content-type[ \t]*:[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE
)
_PART_ENCODING = re.compile(
    rb"^content-(?:transfer-)?encoding[ \t]*+:[ \t]*+(?!(?:identity|7bit|8bit|binary)\s*$)",
    re.IGNORECASE | re.MULTILINE,
)


def is_type(content_type: bytes, wanted: bytes) -> bool:
    """Whether a Content-Type value names the media type, parameters aside."""
    return b"".join(content_type.partition(b";")[0].split()).lower() == wanted


def is_signed(content_type: bytes) -> bool:
    """Whether the body is protected as a whole (RFC 3261 §23: S/MIME)."""
    if content_type == b"application/sdp":
        return False
    lower = content_type.lower()
    return lower.startswith(b"multipart/signed") or lower.partition(b";")[0].find(b"pkcs7") >= 0


def find_sdp(
    data: bytes, start: int, end: int, content_type: bytes, depth: int = 0
) -> list[tuple[int, int]]:
    """Returns the span of every application/sdp body or part in data[start:end], in order."""
    if content_type == b"application/sdp" or is_type(content_type, b"application/sdp"):
        return [(start, end)]
    found: list[tuple[int, int]] = []
    if depth >= MAX_DEPTH or content_type[:10].lower() != b"multipart/":
        return found
    if is_signed(content_type):
        return found
    match = _BOUNDARY.search(content_type)
    if match is None:
        return found
    for part_start, part_end in _parts(data, start, end, match[1] or match[2]):
        head = _PART_HEAD.match(data, part_start, part_end)
        if head is None or _PART_ENCODING.search(data, *head.span()):
            continue
        kind = _PART_TYPE.search(data, *head.span())
        if kind:
            found += find_sdp(data, head.end(), part_end, kind[1].strip(), depth + 1)
    return found


def _parts(data: bytes, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Yields what stands between the delimiters, without the line break that belongs to them."""
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r?\n|\Z)")
    text = data[start:end]
    begin, position = -1, 0
    for _ in range(MAX_PARTS + 1):
        match = delimiter.search(text, position)
        if match is None:
            return
        if begin >= 0:
            yield start + begin, start + match.start()
        if match[1]:
            return
        begin = position = match.end()
