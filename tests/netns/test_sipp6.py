"""A real SIP stack (SIPp) on both ends of a call over IPv6, with audio both ways.

The calling SIPp plays a recording, the answering one sends back what it hears. The router's
firewall lets nothing in unasked, and audio is counted where it arrives.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.network import LAN_ROUTED6, LAN_UNIQUE_LOCAL6, SERVER6, Network
from tests.netns.kernel6 import FIREWALL, MASQUERADE6
from tests.netns.test_sipp import answering, call

pytestmark = [
    pytest.mark.netns,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not shutil.which("sipp"), reason="needs sipp (the package sip-tester)"),
]

SIP_PORT = 5060
PHONE_AUDIO, SERVER_AUDIO = 4000, 6000
PACKETS = 75
AUDIO = "/usr/share/sip-tester/g711a.pcap"

COUNTERS = """
table ip6 audio {
    chain input {
        type filter hook input priority filter; policy accept;
        udp dport %d counter
    }
}
"""

CALL = """<?xml version="1.0" encoding="us-ascii"?>
<scenario name="call with audio">
  <send retrans="500"><![CDATA[
INVITE sip:service@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:caller@[local_ip]:[local_port]>;tag=[pid]S[call_number]
To: <sip:service@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:caller@[local_ip]:[local_port];transport=[transport]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 53655765 2353687637 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8
a=rtpmap:8 PCMA/8000
]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="200"/>
  <send><![CDATA[
ACK sip:service@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:caller@[local_ip]:[local_port]>;tag=[pid]S[call_number]
To: <sip:service@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
  <nop><action><exec play_pcap_audio="%s"/></action></nop>
  <pause milliseconds="3000"/>
  <send retrans="500"><![CDATA[
BYE sip:service@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:caller@[local_ip]:[local_port]>;tag=[pid]S[call_number]
To: <sip:service@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv response="200"/>
</scenario>
"""


def heard(namespace: Namespace) -> int:
    """Returns how many audio packets have arrived."""
    (packets,) = re.findall(
        r"counter packets (\d+)", namespace.run("nft", "list", "table", "ip6", "audio")
    )
    return int(packets)


@pytest.mark.parametrize("transport", ["u1", "t1"])
@pytest.mark.parametrize("lan6", [LAN_ROUTED6, LAN_UNIQUE_LOCAL6])
def test_A59_a_call_over_ipv6_has_audio_both_ways(
    lan6: str, transport: str, tmp_path: Path
) -> None:
    phone = Endpoint(f"{lan6}20", SIP_PORT)
    (tmp_path / "call.xml").write_text(CALL % AUDIO)
    with Network(lan6=lan6) as network:
        rules = FIREWALL if lan6 == LAN_ROUTED6 else FIREWALL + MASQUERADE6
        network.router.run("nft", "-f", "-", text=rules)
        network.lan.run("nft", "-f", "-", text=COUNTERS % PHONE_AUDIO)
        network.wan.run("nft", "-f", "-", text=COUNTERS % SERVER_AUDIO)
        with Gateway(network.router) as gateway:
            server = network.wan.command(
                *("sipp", "-sn", "uas", "-rtp_echo", "-mp", str(SERVER_AUDIO)),
                *options(Endpoint(SERVER6, SIP_PORT), transport),
            )
            caller = network.lan.command(
                *("sipp", "-sf", "call.xml", "-mp", str(PHONE_AUDIO)),
                *options(phone, transport),
                f"[{SERVER6}]:{SIP_PORT}",
            )
            with answering(server, tmp_path) as answerer:
                assert wait_until(lambda: is_bound(network.wan, SIP_PORT), 10.0)
                call(caller, answerer, tmp_path)
            assert heard(network.wan) >= PACKETS
            assert heard(network.lan) >= PACKETS
            assert wait_until(lambda: not gateway.show_mappings("rtp", "rtcp"), 5.0)


def options(where: Endpoint, transport: str) -> tuple[str, ...]:
    """Returns the options of SIPp for one call at an endpoint."""
    address = f"[{where.address}]"
    ends = ("-i", address, "-mi", address, "-p", str(where.port), "-t", transport)
    return (*ends, "-m", "1", "-nostdin", "-timeout", "30s", "-reconnect_close", "false")


def is_bound(namespace: Namespace, port: int) -> bool:
    """Tells whether somebody has the port."""
    return bool(namespace.run("ss", "-Hlntu", "sport", f":{port}"))
