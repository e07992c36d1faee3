"""sipnat with a table that is not empty: from the store, and by calls that nobody ends."""

from __future__ import annotations

import pytest

from tests.bench.peers import flatness
from tests.bench.peers.box import Sipnat
from tests.bench.peers.crowd import loaded
from tests.bench.peers.sipload import play
from tests.bench.peers.stage import Stage

pytestmark = pytest.mark.netns


def test_sipnat_begins_with_the_mappings_of_the_store_and_carries_calls_beside_them() -> None:
    with Stage() as stage, loaded(stage, 1_000) as box:
        (load,) = play(box, [(40.0, 1.0)], "--t1", "10")
        assert 0 < load.good == load.started
        assert len(box.gateway.show_mappings("rtp", "rtcp")) >= 800


def test_open_calls_keep_four_mappings_each() -> None:
    with Stage() as stage, Sipnat(stage) as box:
        (load,) = play(box, [(20.0, 1.0)], *flatness.KEPT_OPEN, "--t1", "10")
        assert 0 < load.good == load.started
        assert len(box.gateway.show_mappings("rtp", "rtcp")) == 4 * load.good


def test_a_gateway_that_has_lost_mappings_is_not_measured() -> None:
    with Stage() as stage, pytest.raises(RuntimeError, match="taken over 10 mappings, not 12"):
        loaded(stage, 12)
