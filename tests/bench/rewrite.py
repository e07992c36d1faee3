"""`./dev bench rewrite`: microseconds the engine takes for a message, warm, without any I/O.

Each figure is the median of several runs. `pass` is the floor: a message that is SIP and names
nothing of ours.
"""

from __future__ import annotations

import random
import statistics
import time

from alg.datagram import Datagram, Side
from alg.gateway import Gateway
from alg.gateway_settings import GatewaySettings
from nat_table.behavior import Behavior
from nat_table.endpoint import Endpoint
from nat_table.table import NatTable

EXTERNAL = "203.0.113.1"
PHONE = Endpoint("10.0.0.20", 5060)
SERVER = Endpoint("203.0.113.10", 5060)
RUNS, MESSAGES = 9, 2000

SDP = (
    "v=0\r\no=- 20518 0 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
    "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
)


def message(start: str, cseq: str, host: str, to_tag: str = "", body: str = "") -> bytes:
    """Renders one message of a phone at `host`."""
    lines = [
        start,
        f"Via: SIP/2.0/UDP {host}:5060;branch=z9hG4bK-1;rport",
        "Max-Forwards: 70",
        'From: "Alice" <sip:alice@example.com>;tag=9fxced76sl',
        f"To: Bob <sip:bob@example.com>{to_tag}",
        "Call-ID: 3848276298220188511@atlanta.example.com",
        f"CSeq: {cseq}",
        f"Contact: <sip:alice@{host}:5060>",
        "User-Agent: Example Phone 1.0",
    ]
    if body:
        lines.append("Content-Type: application/sdp")
    lines += [f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode("ascii")


def cases() -> dict[str, Datagram]:
    """Returns the messages that are timed, by name."""
    host = PHONE.address
    answer = SDP.format(host=SERVER.address)
    tag = ";tag=8321234356"

    def out(payload: bytes) -> Datagram:
        return Datagram(PHONE, SERVER, payload, Side.INTERNAL, Side.EXTERNAL)

    def back(payload: bytes) -> Datagram:
        return Datagram(SERVER, PHONE, payload, Side.EXTERNAL, Side.INTERNAL)

    return {
        "pass": out(message("OPTIONS sip:example.com SIP/2.0", "1 OPTIONS", "192.0.2.9")),
        "REGISTER": out(message("REGISTER sip:example.com SIP/2.0", "1 REGISTER", host)),
        "INVITE with SDP": out(
            message(
                "INVITE sip:bob@example.com SIP/2.0", "1 INVITE", host, "", SDP.format(host=host)
            )
        ),
        "200 with SDP": back(message("SIP/2.0 200 OK", "1 INVITE", EXTERNAL, tag, answer)),
        "ACK": out(message("ACK sip:bob@example.com SIP/2.0", "1 ACK", host, tag)),
        "BYE": out(message("BYE sip:bob@example.com SIP/2.0", "2 BYE", host, tag)),
    }


def main() -> None:
    """Prints the table."""
    table = NatTable([EXTERNAL], Behavior(), random.Random(1))
    gateway = Gateway(GatewaySettings(external_addresses=(EXTERNAL,)), table)
    print(f"{'message':18}{'bytes':>7}{'us':>8}")
    for name, datagram in cases().items():
        receive = gateway.receive
        times = []
        for _ in range(RUNS):
            start = time.process_time()
            for _ in range(MESSAGES):
                receive(datagram, 1000.0)
            times.append((time.process_time() - start) / MESSAGES * 1e6)
        print(f"{name:18}{len(datagram.payload):7}{statistics.median(times):8.1f}")
