"""SIP URIs: host and port are found wherever RFC 3261 §19.1.1 lets them stand, and only there."""

from __future__ import annotations

import pytest

from alg.sip.uri import parse_uri


def host_and_port(text: bytes) -> tuple[bytes, bytes | None] | None:
    """Returns what the spans cut out of the URI, which is set into other bytes."""
    data = b"<" + text + b">"
    uri = parse_uri(data, 1, 1 + len(text))
    if uri is None:
        return None
    port = None if uri.is_bare else data[uri.port_start : uri.port_end]
    return data[uri.host_start : uri.host_end], port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (b"sip:10.0.0.20", b"10.0.0.20", None),
        (b"sip:alice@10.0.0.20", b"10.0.0.20", None),
        (b"sip:alice@10.0.0.20:5062", b"10.0.0.20", b"5062"),
        (b"sip:alice:secret@10.0.0.20:5062", b"10.0.0.20", b"5062"),
        (b"SIP:alice@10.0.0.20:5062", b"10.0.0.20", b"5062"),
        (b"sips:alice@example.com", b"example.com", None),
        (b"sip:alice@10.0.0.20:5062;transport=udp;lr", b"10.0.0.20", b"5062"),
        (b"sip:alice@10.0.0.20;lr=on?Subject=a:b", b"10.0.0.20", None),
        (b"sip:alice@10.0.0.20?Route=%3Csip:10.0.0.9%3E", b"10.0.0.20", None),
        (b"sip:user;par=u%40example.net@example.com", b"example.com", None),
        (b"sip:10.0.0.9;x=y@10.0.0.20:5070", b"10.0.0.20", b"5070"),
        (b"sip:10.0.0.9:1234@10.0.0.20", b"10.0.0.20", None),
        (
            b"sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it@example.com:5060",
            b"example.com",
            b"5060",
        ),
        (b"sip:[2001:db8::10]", b"[2001:db8::10]", None),
        (b"sip:alice@[2001:db8::10]:5070;lr", b"[2001:db8::10]", b"5070"),
        (b"sip:[2001:db8::10:5070]", b"[2001:db8::10:5070]", None),
        (b"sip:alice@my_host", b"my_host", None),
        (b"sip:alice@example.com.", b"example.com.", None),
    ],
)
def test_host_and_port_are_found(text: bytes, host: bytes, port: bytes | None) -> None:
    assert host_and_port(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"*",
        b"sip:",
        b"sip:alice@",
        b"tel:+15550100",
        b"http://10.0.0.20:5060",
        b"nobodyKnowsThisScheme:10.0.0.20",
        b"mailto:alice@10.0.0.20",
        b"sip:alice@10.0.0.20:port",
        b"sip:alice@10.0.0.20:123456",
        b"sip:alice@10.0.0.20 :5060",
        b"sip:alice @10.0.0.20",
        b"sip:alice@[2001:db8::10",
        b"sip:alice@10.0.0.20/path",
        b"sipx:alice@10.0.0.20",
    ],
)
def test_anything_else_is_no_uri_of_ours(text: bytes) -> None:
    assert host_and_port(text) is None


@pytest.mark.parametrize(
    ("text", "port"),
    [
        (b"sip:a@h", 5060),
        (b"sip:a@h;transport=tcp", 5060),
        (b"sip:a@h;transport=TLS", 5061),
        (b"sips:a@h", 5061),
        (b"SIPS:a@h", 5061),
    ],
)
def test_the_default_port_follows_scheme_and_transport(text: bytes, port: int) -> None:
    uri = parse_uri(text, 0, len(text))
    assert uri is not None
    assert uri.default_port == port


@pytest.mark.parametrize(
    ("text", "transport"),
    [
        (b"sip:a@h", b""),
        (b"sip:a@h;TRANSPORT=UDP", b"udp"),
        (b"sip:a@h;lr;transport=ws;ob", b"ws"),
        (b"sip:a@h?x=;transport=tcp", b""),
        (b"sip:a;transport=tcp@h", b""),
    ],
)
def test_a16_the_transport_is_a_parameter_of_the_uri(text: bytes, transport: bytes) -> None:
    uri = parse_uri(text, 0, len(text))
    assert uri is not None
    assert uri.transport == transport


def test_headers_of_the_uri_are_noticed() -> None:
    with_headers, without = b"sip:a@h?Replaces=x", b"sip:a?b@h"
    first, second = (
        parse_uri(with_headers, 0, len(with_headers)),
        parse_uri(without, 0, len(without)),
    )
    assert first is not None and first.has_headers
    assert second is not None and not second.has_headers
