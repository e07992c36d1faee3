"""IPv6 through the whole gateway, in each mode; transcripts are in golden/A59-*.

Property: what leaves and comes back reads as it was written, and only edits change bytes.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alg.gateway_settings import GatewaySettings
from alg.sip.span import apply_edits
from alg.verdict import Reason, Verdict
from nat_table.endpoint import Endpoint
from tests.alg.playbook import (
    EXTERNAL,
    EXTERNAL6,
    PHONE,
    PHONE6,
    ROUTED6,
    SERVER,
    SERVER6,
    Playbook,
    invite,
    register,
    request,
    response,
    sdp,
)

OTHER6 = Endpoint("fd00:1::21", 5060)
MODES = {"pinhole": ROUTED6, "nat66": PHONE6, "nptv6": PHONE6}
modes = pytest.mark.parametrize("mode6", MODES)
identifiers = st.integers(1, 2**64 - 2)
ports = st.integers(1024, 65534)


def offer(phone: Endpoint, port: int = 4000) -> bytes:
    return invite(phone, sdp(phone.address, port, f"a=rtcp:{port + 1} IN IP6 {phone.address}"))


@given(st.sampled_from(sorted(MODES)), identifiers, ports, ports)
def test_a59_what_leaves_and_comes_back_reads_as_it_was_written(
    mode6: str, identifier: int, sip_port: int, rtp_port: int
) -> None:
    prefix = int(IPv6Network(f"{MODES[mode6].address}/64", strict=False).network_address)
    phone = Endpoint(str(IPv6Address(prefix | identifier)), sip_port)
    play = Playbook(mode6=mode6)
    sent = offer(phone, rtp_port)
    left = play.outbound(sent, phone, SERVER6)
    assert left.reason in (Reason.REWRITTEN, Reason.NOTHING_TO_CHANGE)
    assert apply_edits(sent, left.edits) == left.payload
    assert (left.payload == sent) == (mode6 == "pinhole")
    assert play.outbound(sent, phone, SERVER6).payload == left.payload
    assert phone.address.encode() not in left.payload or mode6 == "pinhole"
    binding = play.binding(str(phone))
    assert binding is not None
    for line in (b"Via: SIP/2.0/UDP %b", b"Contact: <sip:alice@%b>"):
        assert line % str(binding.external).encode() in left.payload
    came = play.inbound(response(left.payload, 200), phone, SERVER6).payload
    assert came == response(sent, 200)


@modes
def test_a59_a_call_opens_and_closes_its_media(mode6: str) -> None:
    phone, play = MODES[mode6], Playbook(mode6=mode6)
    play.outbound(register(phone), phone, SERVER6)
    left = play.outbound(offer(phone), phone, SERVER6)
    answer = response(left.payload, 200, body=sdp("2001:db8:ff::20", 6000), contact="<sip:b@h>")
    play.inbound(answer, phone, SERVER6)
    rtp, rtcp = (str(Endpoint(phone.address, port)) for port in (4000, 4001))
    assert set(play.mappings("rtp")) == {rtp} and set(play.mappings("rtcp")) == {rtcp}
    assert play.remotes(rtp) == play.remotes(rtcp) == ["2001:db8:ff::20"]
    play.outbound(request("BYE", phone, to_tag="b", cseq=2), phone, SERVER6)
    play.wait(40)
    assert play.mappings("rtp") == play.mappings("rtcp") == {}


def test_a23_two_phones_on_the_same_port_share_an_address() -> None:
    play = Playbook(mode6="nat66")
    play.outbound(register(PHONE6), PHONE6, SERVER6)
    left = play.outbound(register(OTHER6, call_id="r2"), OTHER6, SERVER6)
    second = play.mappings()[str(OTHER6)]
    assert second.startswith(f"[{EXTERNAL6}]:") and second != f"[{EXTERNAL6}]:5060"
    assert f"Via: SIP/2.0/UDP {second};".encode() in left.payload


def test_a57_media_of_two_phones_stays_inside() -> None:
    play = Playbook(mode6="nptv6")
    play.outbound(register(OTHER6), OTHER6, SERVER6)
    left = play.outbound(offer(PHONE6), PHONE6, SERVER6)
    body = left.payload.partition(b"\r\n\r\n")[2]
    assert b"c=IN IP6 2001:db8:2:" in body
    came = play.inbound(request("INVITE", SERVER6, body, call_id="leg2"), OTHER6, SERVER6)
    assert f"c=IN IP6 {PHONE6.address}\r\n".encode() in came.payload


def test_a_host_without_anything_outside_passes_as_it_came() -> None:
    play = Playbook()
    outcome = play.outbound(offer(PHONE6), PHONE6, SERVER6)
    assert (outcome.verdict, outcome.reason) == (Verdict.UNCHANGED, Reason.NO_EXTERNAL_ADDRESS)
    assert (outcome.changes, PHONE6.address in outcome.detail) == ((), True)


def test_media_hosts_without_anything_outside_are_nobodys() -> None:
    settings = GatewaySettings((EXTERNAL,), media_hosts=frozenset({"fd00:1::30"}))
    outcome = Playbook(settings=settings).outbound(invite(PHONE, sdp("fd00:1::30", 4000)))
    assert outcome.reason is Reason.REWRITTEN
    assert b"c=IN IP6 fd00:1::30" in outcome.payload


@modes
def test_a54_the_routers_own_addresses_are_never_mapped(mode6: str) -> None:
    phone = MODES[mode6]
    settings = GatewaySettings((EXTERNAL,), own_addresses=frozenset({phone.address}))
    play = Playbook(settings=settings, mode6=mode6)
    assert play.outbound(offer(phone), phone, SERVER6).reason is Reason.OWN_ADDRESS


def test_servers_that_traverse_the_nat_by_themselves_are_left_alone() -> None:
    hands_off = (IPv6Network("2001:db8:ff::/48"),)
    play = Playbook(settings=GatewaySettings((EXTERNAL,), hands_off=hands_off), mode6="nat66")
    assert play.outbound(offer(PHONE6), PHONE6, SERVER6).reason is Reason.HANDS_OFF
    assert play.outbound(invite(PHONE), PHONE, SERVER).reason is Reason.REWRITTEN


def test_a_peer_of_the_other_family_is_not_admitted() -> None:
    play = Playbook(mode6="nat66")
    for phone, server in ((PHONE, SERVER), (PHONE6, SERVER6)):
        left = play.outbound(register(phone), phone, server)
        play.inbound(response(left.payload), phone, server)
        left = play.outbound(offer(phone) if phone is PHONE6 else invite(phone), phone, server)
        other = SERVER if phone is PHONE6 else SERVER6
        answer = response(
            left.payload, 200, body=sdp(other.address, 6000), contact=f"<sip:b@{other}>"
        )
        play.inbound(answer, phone, server)
    assert play.remotes(str(PHONE)) == [SERVER.address]
    assert play.remotes(str(PHONE6)) == [SERVER6.address]
    assert play.remotes(f"[{PHONE6.address}]:4000") == []


def test_the_external_address_moves_and_nothing_of_ipv4_with_it() -> None:
    play = Playbook(mode6="nat66")
    play.outbound(register(PHONE))
    play.outbound(register(PHONE6), PHONE6, SERVER6)
    moved = play.table.move(EXTERNAL6, "2001:db8:e::2", play.now)
    play.gateway.move_address(EXTERNAL6, "2001:db8:e::2", moved)
    play.table.take_changes()
    left = play.outbound(register(PHONE6, cseq=2), PHONE6, SERVER6)
    assert b"Contact: <sip:alice@[2001:db8:e::2]:5060>" in left.payload
    assert play.mappings()[str(PHONE)] == f"{EXTERNAL}:5060"


@modes
def test_a_gateway_knows_its_calls_after_a_restart(mode6: str) -> None:
    phone, play = MODES[mode6], Playbook(mode6=mode6)
    left = play.outbound(offer(phone), phone, SERVER6)
    play.inbound(response(left.payload, 200, body=sdp("2001:db8:ff::20", 6000)), phone, SERVER6)
    play.restart()
    play.outbound(request("BYE", phone, to_tag="b", cseq=2), phone, SERVER6)
    play.wait(40)
    assert play.mappings("rtp") == {}


def test_a53_an_msrp_uri_keeps_its_brackets() -> None:
    play = Playbook(mode6="nat66")
    path = "a=path:msrp://[FD00:1::20]:2855/x;tcp"
    body = sdp(PHONE6.address, 2855, path, media="message", protocol="TCP/MSRP")
    left = play.outbound(invite(PHONE6, body), PHONE6, SERVER6)
    assert f"a=path:msrp://[{EXTERNAL6}]:".encode() in left.payload
