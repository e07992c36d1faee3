"""The streams of the benchmark: what is counted is what has passed, through every kind of box."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.bench.peers import media
from tests.bench.peers.crowd import phone
from tests.bench.peers.media import Contender, Turn, remote
from tests.bench.peers.rtpengine import bencode
from tests.bench.peers.rtpload import Flow, RtpLoad
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    PHONE_1,
    REMOTE_1,
    REMOTE_2,
    Network,
)

FLOWS = [Flow(PHONE_1, each, each) for each in (REMOTE_1, REMOTE_2)]
OTHER_PORTS = f"""
table ip other_ports {{
    chain postrouting {{
        type nat hook postrouting priority srcnat - 1
        oifname "{EXTERNAL_INTERFACE}" udp sport 4000 snat to {EXTERNAL}:7000-7999
    }}
}}
"""


def test_bencode() -> None:
    assert bencode({"b": ["x", "yz"], "a": "é"}) == b"d1:a2:\xc3\xa91:bl1:x2:yzee"


def test_addresses_are_all_different() -> None:
    assert len({phone(number) for number in range(20_000)}) == 20_000
    assert len({remote(number) for number in range(100_000)}) == 100_000
    assert (phone(250), remote(62500)) == ("10.1.101.1", "198.19.0.1")


def test_figures_compare_the_boxes_of_one_round() -> None:
    turns = {
        "wire": Turn(9.0, 1000.0, 1.0, 0.0),
        "masquerade": Turn(9.0, 3000.0, 1.0, 0.0),
        "rtpengine": Turn(9.0, 6000.0, 1.0, 0.0),
    }
    found = media.figures_of(turns["rtpengine"], turns)
    assert (found["of_masquerade"], found["ns_of_router"]) == (0.5, 5000.0)


@pytest.fixture
def load() -> Iterator[RtpLoad]:
    with Network() as network, RtpLoad(network.lan, network.wan, FLOWS) as load:
        yield load


@pytest.mark.netns
def test_packets_pass_both_ways_and_are_counted(load: RtpLoad) -> None:
    phones, remotes = load.open()
    assert (phones.sent, remotes.received, remotes.sent) == (2, 2, 0)
    phones, remotes = load.run(0.3, 200.0)
    assert 0 < phones.sent == remotes.received <= 60
    assert 0 < remotes.sent == phones.received <= 60


@pytest.mark.netns
def test_nothing_is_lost_at_full_speed(load: RtpLoad) -> None:
    load.open()
    phones, remotes = load.run(0.2)
    assert (phones.sent, remotes.sent) == (remotes.received, phones.received)


@pytest.mark.netns
def test_remotes_answer_to_where_packets_come_from() -> None:
    with Network() as network:
        network.router.run("nft", "-f", "-", text=OTHER_PORTS)
        with RtpLoad(network.lan, network.wan, FLOWS) as load:
            load.open()
            phones, _ = load.run(0.1, 100.0)
            assert phones.received > 0


@pytest.mark.netns
@pytest.mark.timeout(120)
def test_every_box_carries_all_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "FLOWS", 50)
    monkeypatch.setattr(media, "RATE", 500.0)
    with ExitStack() as stack:
        contenders = media.set_up(stack, (10, 100))
        names = [each.name for each in contenders]
        assert names == ["wire", "masquerade", "10", "100", "rtpengine"]
        for each in contenders:
            assert isinstance(each, Contender)
            turn = each.play(0, 0.2)
            assert turn.packets > 0 and turn.cost > 0 and turn.lost == 0, each.name
