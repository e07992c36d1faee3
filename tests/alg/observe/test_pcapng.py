"""A trace as a capture: what Wireshark's own dissector reads in it is what has passed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from alg.observe.capture import Capture
from alg.observe.passage import Passage
from alg.observe.pcapng import MAX_SEGMENT, CaptureWriter
from alg.observe.story import passage_row
from nat_table.endpoint import Transport
from tests.alg.observe.watched import Watched
from tests.alg.playbook import invite, request, response, sdp

OFFSET = 1_700_000_000.0
FIELDS = (
    "frame.interface_name",
    "frame.comment",
    "frame.packet_id",
    "frame.packet_flags_direction",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "sip.Call-ID",
    "sip.Method",
    "sip.Status-Code",
    "sdp.media.port",
    "_ws.expert.message",
)


def capture(passages: list[Passage]) -> bytes:
    writer = CaptureWriter("lan0", "wan0")
    rows = (passage_row(each, OFFSET, n, is_full=True) for n, each in enumerate(passages, 1))
    return writer.head() + b"".join(map(writer.message, rows))


def dissect(path: Path, *options: str) -> list[dict[str, str]]:
    """Returns what tshark finds in a capture, a dictionary a packet."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    command = ["tshark", "-r", str(path), "-T", "json", *options]
    command += ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    command += ["-o", "tcp.check_checksum:TRUE"]
    for field in FIELDS:
        command += ["-e", field]
    packets = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return [
        {name: values[0] for name, values in packet["_source"]["layers"].items()}
        for packet in packets
    ]


def call(transport: Transport = Transport.UDP) -> Watched:
    play = Watched()
    sent = play.outbound(invite(body=sdp("10.0.0.20", 4000)), transport=transport)
    answer = response(sent.payload, 200, body=sdp("203.0.113.10", 40000))
    play.inbound(answer, transport=transport)
    play.outbound(request("ACK", to_tag="b"), transport=transport)
    return play


@pytest.mark.parametrize("transport", list(Transport))
def test_wireshark_sees_each_message_on_both_sides(tmp_path: Path, transport: Transport) -> None:
    path = tmp_path / "call.pcapng"
    path.write_bytes(capture(call(transport).passages))
    packets = dissect(path)
    assert [packet["frame.interface_name"] for packet in packets] == [
        *("lan0", "wan0"),
        *("wan0", "lan0"),
        *("lan0", "wan0"),
    ]
    assert [(each["ip.src"], each["ip.dst"]) for each in packets[:4]] == [
        ("10.0.0.20", "203.0.113.10"),
        ("203.0.113.1", "203.0.113.10"),
        ("203.0.113.10", "203.0.113.1"),
        ("203.0.113.10", "10.0.0.20"),
    ]
    assert len({each["sip.Call-ID"] for each in packets}) == 1
    assert [each.get("sip.Method") for each in packets] == ["INVITE"] * 2 + [None] * 2 + ["ACK"] * 2
    assert {each.get("sip.Status-Code") for each in packets[2:4]} == {"200"}
    assert not [each for each in packets if "checksum" in each.get("_ws.expert.message", "")]


def test_both_packets_of_a_message_have_one_number_and_say_what_became_of_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "call.pcapng"
    path.write_bytes(capture(call().passages))
    came, left, *_ = dissect(path)
    assert came["frame.packet_id"] == left["frame.packet_id"] == "1"
    assert came["frame.comment"] == "message 1 as it came, outbound: rewritten"
    assert left["frame.comment"].startswith("message 1 as it left\n")
    assert "10.0.0.20:4000" not in left["frame.comment"]
    assert "10.0.0.20 -> 203.0.113.1" in left["frame.comment"]


def test_our_own_reader_finds_the_messages(tmp_path: Path) -> None:
    path, play = tmp_path / "call.pcapng", call()
    path.write_bytes(capture(play.passages))
    arrivals = list(Capture(path))
    assert [each.payload for each in arrivals] == [
        payload
        for passage in play.passages
        for payload in (passage.datagram.payload, passage.outcome.payload)
    ]
    assert arrivals[0].time == pytest.approx(OFFSET + play.passages[0].time, abs=1e-5)


def test_sngrep_finds_the_call(tmp_path: Path) -> None:
    if shutil.which("sngrep") is None:
        pytest.skip("sngrep is not installed")
    path, copy, play = tmp_path / "call.pcapng", tmp_path / "copy.pcap", call()
    path.write_bytes(capture(play.passages))
    command = ["sngrep", "-N", "-I", str(path), "-O", str(copy)]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert ran.stdout.endswith(b"Dialog count: 1\n")
    assert len(list(Capture(copy))) == 2 * len(play.passages)


def test_a_message_that_was_dropped_is_there_once() -> None:
    play = call()
    row = dict(passage_row(play.passages[0], OFFSET, 1, is_full=True))
    writer = CaptureWriter("lan0", "wan0")
    both = len(writer.message(row))
    row |= {"verdict": "dropped", "left_source": None, "left_destination": None, "after": None}
    once = writer.message(row)
    assert len(once) < both
    assert b"dropped (rewritten)" in once


def test_a_long_message_of_a_stream_is_in_segments_that_follow_each_other(tmp_path: Path) -> None:
    path, play = tmp_path / "long.pcapng", Watched()
    body = sdp("10.0.0.20", 4000) + "a=x:" + "y" * MAX_SEGMENT + "\r\n"
    play.outbound(invite(body=body), transport=Transport.TCP)
    path.write_bytes(capture(play.passages))
    streams: dict[int, bytes] = {}
    for arrival in Capture(path):
        streams[arrival.stream] = streams.get(arrival.stream, b"") + arrival.payload
    (passage,) = play.passages
    assert list(streams.values()) == [passage.datagram.payload, passage.outcome.payload]


def test_ipv6_has_right_headers(tmp_path: Path) -> None:
    path = tmp_path / "six.pcapng"
    (first, *_) = call().passages
    row = dict(passage_row(first, OFFSET, 1, is_full=True))
    row |= {"source": "[2001:db8::20]:5060", "destination": "[2001:db8:1::10]:5060"}
    row |= {"left_source": "[2001:db8::20]:5060", "left_destination": "[2001:db8:1::10]:5060"}
    writer = CaptureWriter("lan0", "wan0")
    path.write_bytes(writer.head() + writer.message(row))
    came, _ = dissect(path)
    assert came["ipv6.src"] == "2001:db8::20"
    assert came["sip.Method"] == "INVITE"
    assert "_ws.expert.message" not in came or "hecksum" not in came["_ws.expert.message"]


def test_what_strangers_wrote_is_escaped_in_a_comment() -> None:
    (first, *_) = call().passages
    row = dict(passage_row(first, OFFSET, 1, is_full=True))
    row["edits"] = [{"what": "contact", "old": "\x1b]0;owned\x07\n", "new": "\u202e"}]
    block = CaptureWriter("lan0", "wan0").message(row)
    assert b"\x1b" not in block and "\u202e".encode() not in block
