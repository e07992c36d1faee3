"""parse_sdp: where addresses and ports stand, which c= counts for which m=, what is left unread."""

from __future__ import annotations

import pytest

from alg.sdp.session import Address, SessionDescription, parse_sdp
from tests.alg.playbook import crlf

BEFORE = b"Content-Length: 0\r\n\r\n"


def read(text: str | bytes) -> tuple[bytes, SessionDescription]:
    """Parses a description that stands behind other bytes."""
    body = text if isinstance(text, bytes) else crlf(text)
    data = BEFORE + body + b"c=IN IP4 198.51.100.99\r\n"
    return data, parse_sdp(data, len(BEFORE), len(BEFORE) + len(body))


def cut(data: bytes, address: Address | None) -> tuple[bytes, int] | None:
    return (data[address.start : address.end], address.family) if address else None


TWO_STREAMS = """\
v=0
o=- 1 2 IN IP4 10.0.0.20
s=c=IN IP4 10.0.0.1
c=IN IP4 10.0.0.20
t=0 0
m=audio 4000 RTP/AVP 0
a=rtcp:4007
m=video 4002/2 RTP/SAVPF 96
c=IN IP4 10.0.0.30/127/3
a=rtcp:4009 IN IP4 10.0.0.31
a=rtcp-mux
m=message 2855 TCP/MSRP *
a=path:msrp://10.0.0.20:2855/s1;tcp msrp://10.0.0.9:1/x;tcp
"""


def test_a34_a35_a36_every_stream_has_its_own_connection_or_the_sessions() -> None:
    data, session = read(TWO_STREAMS)
    assert cut(data, session.origin) == (b"10.0.0.20", 4)
    assert [cut(data, c) for c in session.connections] == [(b"10.0.0.20", 4), (b"10.0.0.30", 4)]
    audio, video, message = session.media
    assert [m.kind for m in session.media] == [b"audio", b"video", b"message"]
    assert [cut(data, m.connection) for m in session.media] == [
        (b"10.0.0.20", 4),
        (b"10.0.0.30", 4),
        (b"10.0.0.20", 4),
    ]
    assert [(m.port, m.count) for m in session.media] == [(4000, 1), (4002, 2), (2855, 1)]
    assert [data[m.port_start : m.port_end] for m in session.media] == [b"4000", b"4002", b"2855"]
    assert [m.is_rtp for m in session.media] == [True, True, False]
    assert [m.is_tcp for m in session.media] == [False, False, True]
    assert audio.end == data.index(b"m=video") and message.end == len(BEFORE + crlf(TWO_STREAMS))
    assert video.is_mux and not audio.is_mux


def test_a37_rtcp_lines_are_found_with_and_without_address() -> None:
    data, session = read(TWO_STREAMS)
    audio, video, message = session.media
    assert audio.rtcp is not None and video.rtcp is not None and message.rtcp is None
    assert (audio.rtcp.port, cut(data, audio.rtcp.address)) == (4007, None)
    assert (video.rtcp.port, cut(data, video.rtcp.address)) == (4009, (b"10.0.0.31", 4))
    assert data[video.rtcp.port_start : video.rtcp.port_end] == b"4009"


def test_a53_the_first_msrp_uri_is_found() -> None:
    data, session = read(TWO_STREAMS)
    path = session.media[2].path
    assert path is not None
    assert (cut(data, path.address), path.port) == ((b"10.0.0.20", 4), 2855)


def test_a08_bare_line_feeds_and_a_missing_last_one() -> None:
    data, session = read(TWO_STREAMS.rstrip("\n").encode())
    assert len(session.media) == 3
    assert cut(data, session.origin) == (b"10.0.0.20", 4)


def test_a59_families_are_told_apart() -> None:
    data, session = read(
        "o=- 1 1 IN IP6 2001:db8::1\nc=IN IP6 2001:db8::2\nm=audio 4000 RTP/AVP 0\n"
        "c=IN IP4 10.0.0.20\nm=video 4002 RTP/AVP 0\na=rtcp:4003 IN IP6 2001:db8::3\n"
    )
    assert cut(data, session.origin) == (b"2001:db8::1", 6)
    first, second = session.media
    assert cut(data, first.connection) == (b"10.0.0.20", 4)
    assert cut(data, second.connection) == (b"2001:db8::2", 6)
    assert second.rtcp is not None and cut(data, second.rtcp.address) == (b"2001:db8::3", 6)


@pytest.mark.parametrize(
    "line",
    [
        "a=candidate:1 1 UDP 2130706431 10.0.0.20 4000 typ host",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c=IN IP4 10.0.0.20",
        "i=m=audio 4000 RTP/AVP 0",
        "a=x-c=IN IP4 10.0.0.20",
        " c=IN IP4 10.0.0.20",
        "c=IN IP5 10.0.0.20",
        "c=ATM NSAP 47.0091",
        "m=audio RTP/AVP 0",
        "m=audio -1 RTP/AVP 0",
        "m=audio 4000",
        "a=rtcp:4001 10.0.0.20",
        "a=rtcp-fb:* nack",
        "a=rtcp-mux-only",
        "a=rtcp-xr:rcvr-rtt=all",
        "a=alt:1 1 : x y 10.0.0.20 4000",
    ],
)
def test_a39_a55_other_lines_are_not_read(line: str) -> None:
    before, after = "v=0\nm=video 4002 RTP/AVP 9\n", "a=sendrecv\n"
    _, session = read(before + line + "\n" + after)
    assert session.connections == []
    assert [(m.kind, m.rtcp, m.is_mux, m.path) for m in session.media] == [
        (b"video", None, False, None)
    ]


@pytest.mark.parametrize(
    ("protocol", "is_rtp", "is_tcp"),
    [
        ("RTP/AVP", True, False),
        ("RTP/SAVPF", True, False),
        ("UDP/TLS/RTP/SAVPF", True, False),
        ("udptl", False, False),
        ("UDP/DTLS/SCTP", False, False),
        ("UDP/BFCP", False, False),
        ("TCP/RTP/AVP", True, True),
        ("TCP/TLS/MSRP", False, True),
        ("UDP/FUTURE", False, False),
    ],
)
def test_a55_any_protocol_is_read(protocol: str, is_rtp: bool, is_tcp: bool) -> None:
    _, session = read(f"c=IN IP4 10.0.0.20\nm=x 4000 {protocol} 0\n")
    assert [(m.is_rtp, m.is_tcp) for m in session.media] == [(is_rtp, is_tcp)]


def test_attributes_of_the_session_belong_to_no_stream() -> None:
    _, session = read("a=rtcp:9\na=rtcp-mux\na=path:msrp://10.0.0.20:1/x\nm=audio 1 RTP/AVP 0\n")
    (audio,) = session.media
    assert (audio.rtcp, audio.is_mux, audio.path, audio.connection) == (None, False, None, None)


def test_a44_port_zero_is_a_port() -> None:
    _, session = read("m=audio 0 RTP/AVP 0\nm=video 00000 RTP/AVP 0\n")
    assert [m.port for m in session.media] == [0, 0]


@pytest.mark.parametrize("port", ["65536", "123456", "492170", "9" * 5000])
def test_a06_a_port_out_of_range_is_nobodys(port: str) -> None:
    """Zero means that there is none, so that the rest of the description is still served."""
    _, session = read(
        f"m=audio {port} RTP/AVP 0\nm=audio 1 RTP/AVP 0\na=rtcp:{port}\n"
        f"m=message 4000 TCP/MSRP *\na=path:msrp://10.0.0.20:{port}/x\n"
    )
    audio, other, message = session.media
    assert audio.port == 0
    assert other.rtcp is not None and other.rtcp.port == 0
    assert message.path is not None and message.path.port == 0


def test_a85_hostile_lines_cost_linear_time() -> None:
    """Ten times the bytes, without a pattern that tries them anew from every place."""
    for line in (" IN IP4 a" * 20000, "o=" + " IN IP4 a" * 20000, "a=path:msrp://" + "a" * 90000):
        read(line + "\n")
