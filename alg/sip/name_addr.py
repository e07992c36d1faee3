"""Where the URIs and parameters stand in Contact, Route and their like (RFC 3261 §20.10, §25.1)."""

from __future__ import annotations

from alg.sip.grammar import EXPIRES_PARAM, NAME_ADDR, TAG, search_param
from alg.sip.uri import SipUri, parse_uri

MAX_ADDR_SPEC = 255


class NameAddr:
    """One value of a list: where its URI and its parameters stand, and what is read in them.

    `uri` is None where it is no SIP URI; `is_star` says that it is the "*" of a Contact; `expires`
    is the parameter in seconds, None where there is none.
    """

    __slots__ = (
        "expires",
        "is_star",
        "params_end",
        "params_start",
        "uri",
        "uri_end",
        "uri_start",
    )

    uri: SipUri | None
    is_star: bool
    expires: int | None
    uri_start: int
    uri_end: int
    params_start: int
    params_end: int

    def __init__(self, data: bytes, uri: tuple[int, int], params: tuple[int, int]) -> None:
        self.uri_start, self.uri_end = uri
        self.params_start, self.params_end = params
        self.uri = parse_uri(data, self.uri_start, self.uri_end)
        self.is_star = self.uri is None and data[self.uri_start : self.uri_end] == b"*"
        found = search_param(EXPIRES_PARAM, data, self.params_start, self.params_end)
        self.expires = None if found is None else int(found[1])


def parse_name_addrs(data: bytes, start: int, end: int) -> tuple[list[NameAddr], bool]:
    """Returns the values of one field, and whether they are all there is in it."""
    values: list[NameAddr] = []
    while True:
        match = NAME_ADDR.match(data, start, end)
        if match is None:
            return values, False
        uri = match.span(1)
        values.append(NameAddr(data, uri if uri[0] >= 0 else match.span(2), match.span(3)))
        if not match[4]:
            return values, True
        start = match.end()


def tag_of(data: bytes, start: int, end: int) -> bytes | None:
    """Returns the tag of a From or To field, b"" if it has none; None if it is malformed."""
    match = NAME_ADDR.match(data, start, end)
    if match is None or match[4]:
        return None
    params, params_end = match.span(3)
    tag = search_param(TAG, data, params, params_end)
    return b"" if tag is None else tag[1]


def addr_spec_of(data: bytes, start: int, end: int) -> str:
    """Returns the URI of a From or To field, cut at `MAX_ADDR_SPEC` characters; "" if malformed."""
    match = NAME_ADDR.match(data, start, end)
    uri = match and (match[1] or match[2])
    return uri[:MAX_ADDR_SPEC].decode("utf-8", "replace") if uri else ""
