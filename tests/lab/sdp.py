"""Session descriptions as a phone writes them (RFC 4566), and where they say media goes."""

from __future__ import annotations

import re

from nat_table.endpoint import Endpoint, is_ipv6


def render_sdp(media: Endpoint, *, version: int = 1, direction: str = "sendrecv") -> bytes:
    """Renders one audio stream at `media`, with what every phone offers."""
    address, port = media
    family = 6 if is_ipv6(address) else 4
    lines = (
        "v=0",
        f"o=- 3724394400 {version} IN IP{family} {address}",
        "s=-",
        f"c=IN IP{family} {address}",
        "t=0 0",
        f"m=audio {port} RTP/AVP 0 8 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        f"a={direction}",
        "",
    )
    return "\r\n".join(lines).encode()


def media_endpoint(body: bytes) -> Endpoint:
    """Returns where the first media stream is received: its c= line, else the session's, and m=."""
    text = body.decode()
    port = re.search(r"^m=\S+ (\d+)", text, re.MULTILINE)
    addresses: list[str] = re.findall(r"^c=IN IP[46] (\S+?)\r?$", text, re.MULTILINE)
    if port is None or not addresses:
        raise ValueError("the SDP names no media")
    return Endpoint(addresses[-1], int(port[1]))
