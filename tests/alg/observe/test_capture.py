"""Captures of every kind that people have, whole and damaged, read back."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Loopback
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Packet, Raw

from alg.observe import reassembly
from alg.observe.capture import Arrival, Capture, CaptureError, is_capture
from nat_table.endpoint import Transport
from tests.alg.observe.wire import (
    COOKED,
    COOKED_2,
    ETHERNET,
    RAW,
    TIME,
    ethernet,
    fragments,
    pcapng,
    simple_packet,
    tcp,
    udp,
    write_pcap,
)

PHONE, SERVER = "10.0.0.20:5060", "203.0.113.10:5060"
PHONE_6, SERVER_6 = "[2001:db8::20]:5060", "[2001:db8:1::10]:5060"
PAYLOAD = b"OPTIONS sip:203.0.113.10 SIP/2.0\r\n\r\n"
PACKET = udp(PHONE, SERVER, PAYLOAD)
PACKET_6 = udp(PHONE_6, SERVER_6, PAYLOAD)


def read(path: Path) -> tuple[list[Arrival], dict[str, int]]:
    """Returns the arrivals of a capture, and what was skipped."""
    capture = Capture(path)
    return list(capture), dict(capture.skipped)


def datagrams(path: Path) -> list[tuple[str, str, bytes]]:
    """Returns source, destination and payload of every arrival of a capture that has no more."""
    arrivals, skipped = read(path)
    assert skipped == {}
    assert not any(arrival.is_truncated for arrival in arrivals)
    return [(str(a.source), str(a.destination), a.payload) for a in arrivals]


def streams(path: Path) -> tuple[dict[tuple[str, int], bytes], dict[str, int]]:
    """Returns the octets of each TCP stream by source and number, and what was skipped."""
    arrivals, skipped = read(path)
    octets: dict[tuple[str, int], bytes] = {}
    ended = set()
    for arrival in arrivals:
        key = str(arrival.source), arrival.stream
        assert arrival.transport is Transport.TCP
        assert key not in ended, "nothing follows the end"
        octets[key] = octets.get(key, b"") + arrival.payload
        if arrival.is_end:
            ended.add(key)
    assert ended == set(octets), "every stream ends"
    return octets, skipped


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (ETHERNET, ethernet() / PACKET),
        (ETHERNET, ethernet() / PACKET / Raw(b"")),
        (ETHERNET, ethernet() / Dot1Q(vlan=7) / PACKET),
        (ETHERNET, ethernet() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / PACKET),
        (ETHERNET, ethernet() / Dot1Q(vlan=6) / Dot1Q(vlan=7) / Dot1Q(vlan=8) / PACKET),
        (ETHERNET, ethernet() / PPPoE(sessionid=1) / PPP(proto=0x21) / PACKET),
        (ETHERNET, bytes(ethernet() / PACKET) + b"padding, and what the card appends"),
        (RAW, PACKET),
        (12, PACKET),
        (14, PACKET),
        (228, PACKET),
        (0, Loopback(type=2) / PACKET),
        (0, b"\0\0\0\2" + bytes(PACKET)),
        (108, b"\0\0\0\2" + bytes(PACKET)),
        (COOKED, CookedLinux() / PACKET),
        (COOKED, CookedLinux(proto=0x8100) / Dot1Q(vlan=7) / PACKET),
        (COOKED_2, CookedLinuxV2() / PACKET),
        (COOKED_2, CookedLinuxV2(proto=0x8100) / Dot1Q(vlan=7) / PACKET),
        (RAW, bytes(PACKET)[:2] + b"\0\0" + bytes(PACKET)[4:]),
    ],
)
def test_every_link_type(tmp_path: Path, link_type: int, frame: Packet | bytes) -> None:
    path = write_pcap(tmp_path / "a.pcap", [frame], link_type)
    assert datagrams(path) == [(PHONE, SERVER, PAYLOAD)]


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (ETHERNET, ethernet() / PACKET_6),
        (ETHERNET, ethernet() / PPPoE(sessionid=1) / PPP(proto=0x57) / PACKET_6),
        (RAW, PACKET_6),
        (229, PACKET_6),
        (COOKED, CookedLinux(proto=0x86DD) / PACKET_6),
        (0, b"\x1e\0\0\0" + bytes(PACKET_6)),
    ],
)
def test_every_link_type_with_ipv6(tmp_path: Path, link_type: int, frame: Packet | bytes) -> None:
    path = write_pcap(tmp_path / "a.pcap", [frame], link_type)
    assert datagrams(path) == [(PHONE_6, SERVER_6, PAYLOAD)]


def test_time_is_the_captures(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "a.pcap", [PACKET, PACKET], interval=0.25)
    assert [arrival.time for arrival in Capture(path)] == [TIME, TIME + 0.25]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_with_interfaces_of_different_kinds(tmp_path: Path, order: str) -> None:
    frame = bytes(ethernet() / PACKET)
    frames = [
        (0, int(TIME * 10**9), frame),
        (1, int((TIME + 1) * 1024), bytes(CookedLinux() / PACKET)),
    ]
    section = pcapng([(ETHERNET, 9), (COOKED, 0x80 | 10)], frames, order)
    other = pcapng([(RAW, 6)], [(0, int((TIME + 2) * 10**6), bytes(PACKET))], ">")
    path = tmp_path / "a.pcapng"
    path.write_bytes(section + simple_packet(order, frame) + other)
    assert is_capture(path.read_bytes())
    assert [arrival.time for arrival in Capture(path)] == [TIME, TIME + 1, TIME + 1, TIME + 2]
    assert datagrams(path) == [(PHONE, SERVER, PAYLOAD)] * 4


@pytest.mark.parametrize("seed", range(5))
def test_fragments_in_any_order(tmp_path: Path, seed: int) -> None:
    payload = random.Random(seed).randbytes(4000)
    whole = fragments(udp(PHONE, SERVER, payload), 800)
    packet = IPv6(src="2001:db8::20", dst="2001:db8:1::10") / IPv6ExtHdrFragment(id=seed)
    packet /= UDP(sport=5060, dport=5060) / Raw(payload)
    frames = whole + fragments(packet, 1280) + [whole[0]]
    random.Random(seed).shuffle(frames)
    arrivals, skipped = read(write_pcap(tmp_path / "a.pcap", frames))
    assert sorted(str(arrival.source) for arrival in arrivals) == [PHONE, PHONE_6]
    assert {arrival.payload for arrival in arrivals} == {payload}
    assert set(skipped) <= {"fragmented and incomplete"}


def test_an_atomic_fragment_is_whole(tmp_path: Path) -> None:
    packet = IPv6(src="2001:db8::20", dst="2001:db8:1::10") / IPv6ExtHdrDestOpt()
    packet /= IPv6ExtHdrFragment(id=1) / UDP(sport=5060, dport=5060) / Raw(PAYLOAD)
    assert datagrams(write_pcap(tmp_path / "a.pcap", [packet])) == [(PHONE_6, SERVER_6, PAYLOAD)]


def test_missing_overlapping_and_late_fragments_are_counted(tmp_path: Path) -> None:
    parts = fragments(udp(PHONE, SERVER, bytes(2000)), 800)
    overlap = IP(bytes(parts[1]))
    overlap.frag -= 1
    frames = [parts[0], parts[2], *[PACKET] * 61, parts[1], parts[0], overlap]
    arrivals, skipped = read(write_pcap(tmp_path / "a.pcap", frames))
    assert len(arrivals) == 61
    assert skipped == {"fragmented and incomplete": 2}


def test_fragments_held_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassembly, "MAX_DATAGRAMS", 16)
    frames = [
        fragments(IP(id=number, src="10.0.0.20", dst="203.0.113.10") / Raw(bytes(1600)), 800)[0]
        for number in range(40)
    ]
    capture = Capture(write_pcap(tmp_path / "a.pcap", frames, interval=0.0))
    assert list(capture) == []
    assert capture.skipped == {"fragmented and incomplete": 40}


DATA = bytes(range(256)) * 4
START = 2**32 - 300


def segments(size: int = 100) -> list[Packet]:
    """Returns DATA in segments whose sequence numbers wrap around."""
    return [
        tcp(PHONE, SERVER, START + 1 + at, DATA[at : at + size]) for at in range(0, len(DATA), size)
    ]


SYN = tcp(PHONE, SERVER, START, b"", "S")
FIN = tcp(PHONE, SERVER, START + 1 + len(DATA), b"", "FA")


@pytest.mark.parametrize("seed", range(5))
def test_tcp_out_of_order_and_retransmitted(tmp_path: Path, seed: int) -> None:
    middle = [*segments(), *segments(64), FIN]
    random.Random(seed).shuffle(middle)
    path = write_pcap(tmp_path / "a.pcap", [SYN, *middle, *segments(), FIN])
    assert streams(path) == ({(PHONE, 1): DATA}, {})


def test_tcp_without_its_beginning(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "a.pcap", [*segments(), *segments()[:3]])
    assert streams(path) == ({(PHONE, 1): DATA}, {})


def test_tcp_after_a_gap_is_counted(tmp_path: Path) -> None:
    first, _, *others = segments()
    path = write_pcap(tmp_path / "a.pcap", [SYN, first, *others])
    expected = DATA[:100]
    assert streams(path) == (
        {(PHONE, 1): expected},
        {"bytes of TCP after a gap": len(DATA) - 200},
    )


def test_tcp_held_before_a_gap_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassembly, "MAX_SEGMENTS_AHEAD", 16)
    ahead = [tcp(PHONE, SERVER, START + 10 + number, b"x") for number in range(40)]
    octets, skipped = streams(write_pcap(tmp_path / "a.pcap", [SYN, *ahead, *segments()]))
    assert octets == {(PHONE, 1): b""}
    assert skipped["bytes of TCP after a gap"] > 40


def test_tcp_reset_and_the_same_ports_again(tmp_path: Path) -> None:
    frames = [
        tcp(PHONE, SERVER, 1000, b"", "S"),
        tcp(PHONE, SERVER, 1000, b"", "S"),
        tcp(PHONE, SERVER, 1001, b"old"),
        tcp(SERVER, PHONE, 9000, b"answer"),
        tcp(PHONE, SERVER, 1004, b"", "R"),
        tcp(PHONE, SERVER, 1001, b"old"),
        tcp(PHONE, SERVER, 5000, b"fast open", "S"),
        tcp(PHONE, SERVER, 5010, b" and more"),
    ]
    octets, skipped = streams(write_pcap(tmp_path / "a.pcap", frames))
    assert octets == {
        (PHONE, 1): b"old",
        (SERVER, 2): b"answer",
        (PHONE, 3): b"fast open and more",
    }
    assert set(skipped) <= {"bytes of TCP after a gap"}


def test_what_is_neither_udp_nor_tcp_is_counted_by_name(tmp_path: Path) -> None:
    frames: list[Packet | bytes] = [
        ethernet() / ARP(),
        ethernet() / IP() / Raw(b"?"),
        ethernet(),
        b"short",
        bytes(ethernet() / PACKET)[:30],
        ethernet() / IP(proto=6) / Raw(b"short"),
        ethernet() / IP(proto=17) / Raw(b"short"),
        bytes(ethernet(0x0800)) + b"\x41" + bytes(PACKET)[1:],
    ]
    arrivals, skipped = read(write_pcap(tmp_path / "a.pcap", frames, ETHERNET))
    assert arrivals == []
    assert sum(skipped.values()) == len(frames)
    assert set(skipped) == {
        "not IP",
        "neither UDP nor TCP",
        "too short for their headers",
        "malformed IP headers",
    }


def test_an_unknown_link_type_is_named(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "a.pcap", [PACKET], 195)
    assert read(path) == ([], {"link type 195 is not known": 1})


def test_a_short_snapshot_is_told_from_a_short_datagram(tmp_path: Path) -> None:
    frames = [bytes(PACKET)[:-5], bytes(PACKET) + b"padding"]
    arrivals, _ = read(write_pcap(tmp_path / "a.pcap", frames))
    assert [arrival.is_truncated for arrival in arrivals] == [True, False]


CUT = "the capture is cut or damaged"


@pytest.mark.parametrize("missing", [1, 20, len(bytes(PACKET)) + 3])
def test_a_cut_file_gives_what_is_whole_and_then_a_sentence(tmp_path: Path, missing: int) -> None:
    path = write_pcap(tmp_path / "a.pcap", [PACKET, PACKET])
    path.write_bytes(path.read_bytes()[:-missing])
    capture = iter(Capture(path))
    assert next(capture).payload == PAYLOAD
    with pytest.raises(CaptureError, match=rf"^{path}: {CUT} after frame 1$"):
        next(capture)


@pytest.mark.parametrize(
    "data",
    [
        b"\xd4\xc3\xb2\xa1",
        b"\xd4\xc3\xb2\xa1" + bytes(20) + struct.pack("<IIII", 0, 0, 2**32 - 1, 0),
        b"\x0a\x0d\x0d\x0a",
        b"\x0a\x0d\x0d\x0a" + bytes(40),
        pcapng([], [(0, 0, b"frame")], "<"),
        pcapng([(RAW, 6)], [], "<") + b"\x06\0\0\0\xff\xff\xff\xff",
        pcapng([(RAW, 6)], [], "<")[:-2],
    ],
)
def test_a_damaged_head_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=f"^{path}: {CUT} at its head$"):
        list(Capture(path))


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"cannot be read: No such file or directory$"):
        list(Capture(tmp_path / "a.pcap"))


@pytest.mark.parametrize("seed", range(20))
def test_noise_never_raises_anything_else(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    parts = fragments(udp(PHONE, SERVER, bytes(2000)), 800)
    frames = [ethernet() / packet for packet in (PACKET, PACKET_6, *parts, SYN, *segments())]
    clean = [bytes(frame) for frame in frames]
    if seed % 2:
        data = pcapng([(ETHERNET, 6)], [(0, 0, frame) for frame in clean], "<")
    else:
        data = write_pcap(tmp_path / "b.pcap", clean, ETHERNET).read_bytes()
    noisy = bytearray(data)
    for _ in range(40):
        noisy[rng.randrange(12, len(noisy))] = rng.randrange(256)
    path = tmp_path / "a.pcap"
    path.write_bytes(noisy)
    try:
        list(Capture(path))
    except CaptureError as error:
        assert "\n" not in str(error)
