"""Session descriptions through the whole gateway: what is mapped, what changes, what stays."""

from __future__ import annotations

import itertools

import pytest

from alg.gateway_settings import GatewaySettings
from alg.sip.message import parse_message
from alg.verdict import Reason, Verdict
from nat_table.behavior import Behavior
from nat_table.endpoint import Endpoint
from tests.alg.playbook import (
    EXTERNAL,
    PHONE,
    PHONE_2,
    Playbook,
    crlf,
    invite,
    sdp,
)

SESSION = """\
v=0
o=- 1 1 IN IP4 10.0.0.20
s=call of 10.0.0.20
c=IN IP4 10.0.0.20
t=0 0
"""
AUDIO = "m=audio 4000 RTP/AVP 0\n"


def body_of(payload: bytes) -> str:
    """Returns the body that Content-Length covers, as text with plain line ends."""
    message = parse_message(payload)
    return payload[slice(*message.body)].decode().replace("\r\n", "\n")


def sent(text: str, play: Playbook | None = None, phone: Endpoint = PHONE) -> str:
    """Returns what becomes of a description in an INVITE."""
    outcome = (play or Playbook()).outbound(invite(phone, text), phone)
    assert outcome.verdict is Verdict.REWRITTEN, outcome
    return body_of(outcome.payload)


def changed(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def busy(*ports: int) -> Playbook:
    """Returns a playbook in which a call of phone 2 has these RTP ports, and those after them."""
    play = Playbook()
    for port in ports:
        message = invite(PHONE_2, sdp("10.0.0.21", port), call_id=f"other-{port}")
        assert play.outbound(message, PHONE_2).verdict is Verdict.REWRITTEN
    return play


def media_mappings(play: Playbook) -> set[str]:
    return {
        internal
        for internal in play.mappings()
        if internal.startswith("10.0.0.20:") and internal != "10.0.0.20:5060"
    }


IP = ("IN IP4 10.0.0.20\n", "IN IP4 203.0.113.1\n")


def test_a34_a04_connection_and_origin_are_edited_and_nothing_else() -> None:
    text = SESSION + AUDIO + "a=candidate:1 1 UDP 1 10.0.0.20 4000 typ host\na=x:10.0.0.20:4000\n"
    assert sent(text) == changed(text, IP)


def test_a34_a35_every_stream_of_any_kind() -> None:
    text = SESSION + "".join(
        f"m={kind} {port} {protocol} 0\nc=IN IP4 10.0.0.20\n"
        for kind, port, protocol in (
            ("audio", 4000, "RTP/AVP"),
            ("video", 4002, "UDP/TLS/RTP/SAVPF"),
            ("image", 4004, "udptl"),
            ("application", 4006, "UDP/BFCP"),
            ("text", 4008, "RTP/SAVP"),
            ("message", 4010, "UDP/FUTURE"),
        )
    )
    play = Playbook()
    assert sent(text, play) == changed(text, IP)
    ports = (4000, 4001, 4002, 4003, 4004, 4006, 4008, 4009, 4010)
    assert media_mappings(play) == {f"10.0.0.20:{port}" for port in ports}


def test_a23_a_port_that_is_taken_is_replaced_with_its_parity() -> None:
    play = busy(4000)
    lines = sent(SESSION + AUDIO, play).split("\n")
    port = int(lines[5].split()[1])
    assert (16384 <= port <= 24575, port % 2) == (True, 0)
    assert play.mappings()["10.0.0.20:4000"] == f"203.0.113.1:{port}"
    assert play.mappings()["10.0.0.20:4001"] == f"203.0.113.1:{port + 1}"
    assert lines[5:] == [f"m=audio {port} RTP/AVP 0", ""]


def test_a36_a82_streams_of_other_hosts_are_left() -> None:
    text = SESSION + "m=audio 4000 RTP/AVP 0\nc=IN IP4 10.0.0.30\n" + "m=video 4002 RTP/AVP 0\n"
    play = busy(4000)
    assert sent(text, play) == changed(text, IP)
    assert media_mappings(play) == {"10.0.0.20:4002", "10.0.0.20:4003"}


def test_a36_a82_a_configured_media_host_is_translated() -> None:
    play = Playbook(settings=GatewaySettings((EXTERNAL,), media_hosts=frozenset({"10.0.0.30"})))
    text = SESSION + "m=audio 4000 RTP/AVP 0\nc=IN IP4 10.0.0.30\n"
    assert sent(text, play) == changed(text, IP, ("10.0.0.30", "203.0.113.1"))
    assert "10.0.0.30:4000" in play.mappings()


@pytest.mark.parametrize("port", [4001, 4999])
def test_a37_an_odd_port_stays_odd(port: int) -> None:
    text = SESSION + f"m=audio {port} RTP/AVP 0\n"
    assert sent(text) == changed(text, IP)
    moved = sent(text, busy(port)).split("\n")[5].split()[1]
    assert int(moved) % 2 == 1


@pytest.mark.parametrize("address", ["", " IN IP4 10.0.0.20"])
def test_a37_rtcp_of_its_own_is_mapped(address: str) -> None:
    text = SESSION + AUDIO + f"a=rtcp:4777{address}\na=sendrecv\n"
    play = Playbook()
    assert sent(text, play) == changed(text, IP)
    assert play.mappings("rtcp") == {"10.0.0.20:4777": "203.0.113.1:4777"}
    play = busy(4777)
    external = sent(text, play)
    port = play.mappings()["10.0.0.20:4777"].split(":")[1]
    assert port != "4777"
    assert external == changed(text, IP, ("4777", port))


@pytest.mark.parametrize(
    "value", ["4001 IN IP4 198.51.100.7", "4001 IN IP6 2001:db8::7", "9 IN IP4 0.0.0.0", "0"]
)
def test_a37_a40_rtcp_elsewhere_is_left(value: str) -> None:
    text = SESSION + AUDIO + f"a=rtcp:{value}\n"
    play = busy(4001)
    result = sent(text, play)
    port = play.mappings()["10.0.0.20:4000"].split(":")[1]
    assert result == changed(text, IP, ("m=audio 4000", f"m=audio {port}"))


def test_a37_rtcp_may_name_the_phone_where_the_connection_does_not() -> None:
    text = SESSION + AUDIO + "c=IN IP4 198.51.100.7\na=rtcp:4777 IN IP4 10.0.0.20\n"
    play = Playbook()
    assert sent(text, play) == changed(text, IP)
    assert media_mappings(play) == {"10.0.0.20:4777"}


def test_a37_rtcp_that_could_not_stay_next_to_rtp_is_announced() -> None:
    play = busy(4001)
    text = SESSION + AUDIO + "a=sendrecv\n" + "m=video 4100 RTP/AVP 31\n"
    assert play.binding("10.0.0.20:4000") is None
    t38 = SESSION + "m=image 4000 udptl t38\n"
    sent(t38, play)
    result = sent(text, play)
    mapped = play.mappings()
    assert mapped["10.0.0.20:4000"] == "203.0.113.1:4000"
    rtcp = mapped["10.0.0.20:4001"].split(":")[1]
    assert rtcp != "4001"
    assert result == changed(text, IP, ("sendrecv\n", f"sendrecv\na=rtcp:{rtcp}\n"))


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_a37_an_added_line_stands_before_empty_ones(end: str) -> None:
    play = busy(4001)
    sent(SESSION + "m=image 4000 udptl t38\n", play)
    body = crlf(SESSION + AUDIO.rstrip("\n") + end)
    outcome = play.outbound(invite(PHONE, body))
    result = body_of(outcome.payload)
    rtcp = play.mappings()["10.0.0.20:4001"].split(":")[1]
    assert result.rstrip("\n") == changed(SESSION + AUDIO, IP) + f"a=rtcp:{rtcp}"


def test_a37_the_last_port_has_no_rtcp_to_announce() -> None:
    result = sent(SESSION + "m=audio 65535 RTP/AVP 0\n")
    assert "a=rtcp" not in result


def test_a38_mux_is_never_stripped_and_both_ports_are_open() -> None:
    text = SESSION + AUDIO + "a=rtcp-mux\na=rtcp:4000 IN IP4 10.0.0.20\n"
    play = Playbook()
    assert sent(text, play) == changed(text, IP)
    text = SESSION + AUDIO + "a=rtcp-mux\n"
    play = Playbook()
    assert sent(text, play) == changed(text, IP)
    assert media_mappings(play) == {"10.0.0.20:4000", "10.0.0.20:4001"}


def test_a39_addresses_that_are_external_already_stay() -> None:
    text = changed(SESSION + AUDIO, IP) + "a=candidate:1 1 UDP 1 10.0.0.20 4000 typ host\n"
    play = Playbook()
    assert sent(text, play) == text
    assert media_mappings(play) == set()


@pytest.mark.parametrize("port", [0, 9])
def test_a40_a41_a44_ports_that_are_none_stay_and_open_nothing(port: int) -> None:
    text = SESSION + f"m=audio {port} RTP/AVP 0\na=bundle-only\n"
    play = Playbook()
    assert sent(text, play) == changed(text, IP)
    assert media_mappings(play) == set()


@pytest.mark.parametrize(
    "line",
    [
        "c=IN IP4 0.0.0.0",
        "c=IN IP6 ::",
        "c=IN IP6 2001:db8::20",
        "c=IN IP4 phone.example.com",
        "c=IN IP4 224.2.1.1/127",
        "c=IN IP4 127.0.0.1",
        "c=IN IP4 198.51.100.7",
        "c=IN IP4 10.0.0.200",
    ],
)
def test_a42_a58_a59_a12_a03_connections_that_are_not_the_phones_stay(line: str) -> None:
    text = SESSION.replace("c=IN IP4 10.0.0.20", line) + AUDIO
    play = Playbook()
    assert sent(text, play) == changed(text, IP)
    assert media_mappings(play) == set()


@pytest.mark.parametrize(
    "origin", ["IN IP4 0.0.0.0", "IN IP6 ::1", "IN IP4 host.example", "IN X y"]
)
def test_a03_a36_the_origin_is_independent(origin: str) -> None:
    text = SESSION.replace("o=- 1 1 IN IP4 10.0.0.20", f"o=- 1 1 {origin}") + AUDIO
    assert sent(text) == changed(text, IP)


def test_a42_hold_and_resume_keep_the_port_and_the_origin() -> None:
    play = busy(4000)
    first = sent(sdp("10.0.0.20", 4000), play)
    hold = sdp("0.0.0.0", 4000, "a=sendonly", origin="10.0.0.20", version=2)
    assert sent(hold, play) == changed(hold, IP)
    resumed = sdp("10.0.0.20", 4000, version=3)
    assert sent(resumed, play) == first.replace("o=- 1 1", "o=- 1 3")


@pytest.mark.parametrize("play", [Playbook(), busy(4000), busy(4002)], ids=["free", "0", "2"])
def test_a54_pairs_of_one_stream_stay_in_a_row(play: Playbook) -> None:
    text = SESSION + "m=audio 4000/2 RTP/AVP 0\n"
    result = sent(text, play)
    mapped = play.mappings()
    first = int(mapped["10.0.0.20:4000"].split(":")[1])
    assert result == changed(text, IP, ("4000/2", f"{first}/2"))
    assert [mapped[f"10.0.0.20:{4000 + i}"] for i in range(4)] == [
        f"203.0.113.1:{first + i}" for i in range(4)
    ]


@pytest.mark.parametrize(
    "count",
    [
        "400",
        "2000000000",
        pytest.param("9" * 5000, id="5000 digits"),
    ],
)
def test_a06_an_impossible_count_leaves_the_message_alone(count: str) -> None:
    media = f"m=audio 65000/{count} RTP/AVP 0"
    play = Playbook()
    message = invite(PHONE, SESSION + media + "\n")
    outcome = play.outbound(message)
    assert (outcome.verdict, outcome.payload) == (Verdict.UNCHANGED, message)
    assert outcome.reason is not Reason.ERROR
    assert play.mappings() == {}


@pytest.mark.parametrize("port", ["65536", "492170", "9" * 5000])
def test_a06_an_impossible_port_is_left_beside_what_is_fine(port: str) -> None:
    text = SESSION + f"m=audio {port} RTP/AVP 0\nm=video 3228 RTP/AVP 31\n"
    play = busy(3228)
    external = sent(text, play)
    assert external == changed(text, IP, ("3228", play.mappings()["10.0.0.20:3228"].split(":")[1]))
    assert media_mappings(play) == {"10.0.0.20:3228", "10.0.0.20:3229"}


def test_a81_a_media_port_below_1024_is_denied() -> None:
    play = Playbook()
    message = invite(PHONE, SESSION + "m=audio 22 RTP/AVP 0\n")
    outcome = play.outbound(message)
    assert (outcome.reason, outcome.payload) == (Reason.DENIED_PORT, message)
    assert play.mappings() == {}


@pytest.mark.parametrize(
    ("rate", "reason"), [(100_000, Reason.QUOTA), (200, Reason.RATE)], ids=["quota", "rate"]
)
def test_a77_a_limit_leaves_the_message_alone_and_the_table_as_it_was(
    rate: int, reason: Reason
) -> None:
    play = Playbook(behavior=Behavior(max_new_per_second=rate))
    media = "".join(f"m=audio {port} RTP/AVP 0\n" for port in range(2000, 2120, 2))
    for number in itertools.count():
        before = play.mappings()
        text = SESSION + media.replace("m=audio 2", f"m=audio {2 + number}")
        message = invite(PHONE, text, call_id=f"call-{number}")
        outcome = play.outbound(message)
        if outcome.verdict is Verdict.UNCHANGED:
            break
    assert (outcome.reason, outcome.payload) == (reason, message)
    assert play.mappings() == before and outcome.changes == ()


def test_a56_equal_ports_share_a_mapping() -> None:
    text = SESSION + AUDIO + AUDIO.replace("audio", "video")
    play = busy(4000)
    result = sent(text, play)
    port = play.mappings()["10.0.0.20:4000"].split(":")[1]
    assert result == changed(text, IP, ("4000", port))


def test_a53_a_tcp_stream_opens_no_udp_port() -> None:
    text = SESSION + "m=application 4000 TCP/BFCP *\n"
    play = Playbook()
    sent(text, play)
    assert media_mappings(play) == set()
