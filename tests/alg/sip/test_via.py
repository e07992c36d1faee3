"""Via: every via-parm, with white space wherever RFC 3261 §25.1 allows it; anything else raises."""

from __future__ import annotations

import pytest

from alg.sip.via import branch_of, parse_via

Parsed = tuple[bytes, bytes, bytes | None, bytes]


def parsed(value: bytes) -> list[Parsed]:
    """Returns transport, host, port and branch of every via-parm of a value."""
    data = b"Via: " + value + b"\r\n"
    vias, is_whole = parse_via(data, 5, 5 + len(value))
    if not is_whole:
        raise ValueError("Via")
    return [
        (
            via.transport,
            data[via.host_start : via.host_end],
            None if via.is_bare else data[via.port_start : via.port_end],
            branch_of(data, via),
        )
        for via in vias
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"SIP/2.0/UDP 10.0.0.20", (b"udp", b"10.0.0.20", None, b"")),
        (
            b"SIP/2.0/UDP 10.0.0.20:5062;branch=z9hG4bKa",
            (b"udp", b"10.0.0.20", b"5062", b"z9hG4bKa"),
        ),
        (b"sip/2.0/udp pc.example.com;BRANCH=x;rport", (b"udp", b"pc.example.com", None, b"x")),
        (
            b"SIP/2.0/TLS [2001:db8::9]:5061;rport=9;branch=b",
            (b"tls", b"[2001:db8::9]", b"5061", b"b"),
        ),
        (b"SIP/2.0/UDP h;received=[2001:db8::9:255];branch=b", (b"udp", b"h", None, b"b")),
        (b"SIP/2.0/UDP h;received=192.0.2.7;rport=31000", (b"udp", b"h", None, b"")),
        (b"SIP/2.0/TLS-SCTP h;ttl=1;maddr=224.0.1.75", (b"tls-sctp", b"h", None, b"")),
        (b"SIP/2.0/UDP h;keep;alias;rport;branch=b", (b"udp", b"h", None, b"b")),
        (b'SIP/2.0/UDP h;x="a,;b\\"";branch=b', (b"udp", b"h", None, b"b")),
        (b"SIP/2.0/UDP t_o_p.example", (b"udp", b"t_o_p.example", None, b"")),
    ],
)
def test_one_value(value: bytes, expected: Parsed) -> None:
    assert parsed(value) == [expected]


def test_a08_white_space_and_folds_may_stand_between_the_tokens() -> None:
    value = b"SIP  /   2.0\r\n /UDP\r\n\t10.0.0.20 : 5062 ;\r\n  branch\t=\r\n z9hG4bKa ; rport"
    assert parsed(value) == [(b"udp", b"10.0.0.20", b"5062", b"z9hG4bKa")]


def test_a09_values_joined_by_commas() -> None:
    value = b'SIP/2.0/UDP a;branch=1;x="q,r", SIP/2.0/TCP b:7 ,\r\n SIP / 2.0 / UDP c;branch=3'
    assert parsed(value) == [
        (b"udp", b"a", None, b"1"),
        (b"tcp", b"b", b"7", b""),
        (b"udp", b"c", None, b"3"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"SIP/2.0/UDP",
        b"SIP/2.0/UDP ",
        b"SIP/3.0/UDP h",
        b"SIP/2.0 h",
        b"HTTP/2.0/UDP h",
        b"SIP/2.0/UDPh",
        b"SIP/2.0/UDP h:port",
        b"SIP/2.0/UDP h:123456",
        b"SIP/2.0/UDP h:",
        b"SIP/2.0/UDP [2001:db8::1",
        b"SIP/2.0/UDP h i",
        b"SIP/2.0/UDP h;",
        b"SIP/2.0/UDP h;x=;branch=b",
        b'SIP/2.0/UDP h;x="open',
        b"SIP/2.0/UDP h;branch=a b",
        b"SIP/2.0/UDP h,",
        b"SIP/2.0/UDP h,,SIP/2.0/UDP i",
    ],
)
def test_what_is_no_via_raises(value: bytes) -> None:
    with pytest.raises(ValueError, match="Via"):
        parsed(value)


def test_a_branch_in_a_quoted_value_is_none() -> None:
    assert parsed(b'SIP/2.0/UDP h;x=";branch=no";branch=yes') == [(b"udp", b"h", None, b"yes")]
