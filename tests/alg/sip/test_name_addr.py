"""name-addr lists: the URI and the field's own parameters, whatever the display name looks like."""

from __future__ import annotations

import pytest

from alg.sip.name_addr import parse_name_addrs


def parsed(value: bytes) -> list[tuple[bytes, bytes]]:
    """Returns URI and parameters of every value of a field."""
    data = b"m: " + value + b"\r\n"
    values, is_whole = parse_name_addrs(data, 3, 3 + len(value))
    if not is_whole:
        raise ValueError("name-addr")
    return [
        (data[item.uri_start : item.uri_end], data[item.params_start : item.params_end])
        for item in values
    ]


def expires(value: bytes) -> list[int | None]:
    return [item.expires for item in parse_name_addrs(value, 0, len(value))[0]]


@pytest.mark.parametrize(
    ("value", "uri", "params"),
    [
        (b"<sip:a@h>", b"sip:a@h", b""),
        (b"sip:a@h", b"sip:a@h", b""),
        (b"*", b"*", b""),
        (b"<sip:a@h;lr>;q=0.7", b"sip:a@h;lr", b";q=0.7"),
        (b"sip:a@h;q=0.7", b"sip:a@h", b";q=0.7"),
        (b"<sip:a@h?Route=%3Csip:x%3E>", b"sip:a@h?Route=%3Csip:x%3E", b""),
        (b"Alice <sip:a@h>", b"sip:a@h", b""),
        (b"Mr. Watson's Phone <sip:a@h>", b"sip:a@h", b""),
        (b"Caf\xc3\xa9<sip:a@h>", b"sip:a@h", b""),
        (b'"" <sip:a@h>', b"sip:a@h", b""),
        (b'"Alice"<sip:a@h>', b"sip:a@h", b""),
        (b'"A, B" <sip:a@h>', b"sip:a@h", b""),
        (b'"<sip:no@no>" <sip:a@h>', b"sip:a@h", b""),
        (b'"sip:no@10.0.0.20;tag=1" <sip:a@h>', b"sip:a@h", b""),
        (b'"a\\"<sip:no@no>, \\\\" <sip:a@h>', b"sip:a@h", b""),
        (b'"Quot\xe9\r\n folded" \r\n <sip:a@h>', b"sip:a@h", b""),
        (b"<tel:+15550100>", b"tel:+15550100", b""),
        (
            b'<sip:a@h>;+sip.instance="<urn:uuid:0>";reg-id=1',
            b"sip:a@h",
            b';+sip.instance="<urn:uuid:0>";reg-id=1',
        ),
        (b'<sip:a@h>;methods="INVITE, ACK"', b"sip:a@h", b';methods="INVITE, ACK"'),
        (b"<sip:a@h>;temp-gruu=x;ob", b"sip:a@h", b";temp-gruu=x;ob"),
        (b"<sip:a@h> ; expires\t=\r\n 60", b"sip:a@h", b" ; expires\t=\r\n 60"),
        (b"<sip:a@h>;received=[2001:db8::1]", b"sip:a@h", b";received=[2001:db8::1]"),
    ],
)
def test_a09_one_value(value: bytes, uri: bytes, params: bytes) -> None:
    assert parsed(value) == [(uri, params)]


def test_a09_values_joined_by_commas() -> None:
    first = b'"One, <sip:x>" <sip:1@h;a=b>;q=1 ,\r\n sip:2@h;expires=5'
    value = first + b', Three <sip:3,4@h>,<tel:5>;x="," '
    assert [uri for uri, _ in parsed(value)] == [b"sip:1@h;a=b", b"sip:2@h", b"sip:3,4@h", b"tel:5"]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"<>",
        b"<sip:a@h",
        b"sip:a@h>",
        b'"open <sip:a@h>',
        b'"end\\" <sip:a@h>',
        b"<sip:a @h>",
        b"<<sip:a@h>>",
        b"<sip:a@h> trailing",
        b"<sip:a@h>,",
        b"sip:a@h?Subject=x",
        b"<sip:a@h>;=x",
        b'<sip:a@h>;x="open',
    ],
)
def test_what_is_no_name_addr_raises(value: bytes) -> None:
    with pytest.raises(ValueError, match="name-addr"):
        parsed(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"<sip:a@h>", [None]),
        (b"<sip:a@h;expires=5>", [None]),
        (b"<sip:a@h>;expires=0", [0]),
        (b"<sip:a@h>;q=1;Expires = 60", [60]),
        (b'<sip:a@h>;expires="60"', [60]),
        (b"sip:a@h;expires=7, <sip:b@h>, <sip:c@h>;expires=9", [7, None, 9]),
        (b"<sip:a@h>;expires=soon", [None]),
        (b"<sip:a@h>;x-expires=5", [None]),
    ],
)
def test_a26_expires_is_each_contacts_own(value: bytes, seconds: list[int | None]) -> None:
    assert expires(value) == seconds


def test_expires_in_a_quoted_value_is_none() -> None:
    assert expires(b'<sip:a@h>;x=";expires=5";expires=3600') == [3600]
