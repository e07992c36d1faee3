"""The epoch goes on over a restart that keeps the mappings, and begins anew where they are lost."""

from __future__ import annotations

import math
import struct

import pytest

from alg.port_manager.epoch import Epoch


def test_it_counts_from_where_it_began() -> None:
    epoch = Epoch(1000.0)
    assert [epoch.at(moment) for moment in (999.0, 1000.0, 1042.9)] == [0, 0, 42]
    epoch.reset(1042.9)
    assert epoch.at(1050.0) == 7


def test_it_is_stored_once_and_goes_on() -> None:
    first = Epoch(1000.0)
    row = first.take_row(has_all=False)
    assert row is not None
    assert first.take_row(has_all=False) is None
    assert first.take_row(has_all=True) == row
    second = Epoch(2000.0)
    second.restore(row)
    assert second.at(2000.0) == 1000
    assert second.take_row(has_all=False) is None
    second.reset(2000.0)
    assert second.take_row(has_all=False) is not None


@pytest.mark.parametrize(
    "row", [b"x", *(struct.pack("!d", each) for each in (math.nan, math.inf, -1.0, 1e300))]
)
def test_a_row_that_is_damaged_is_refused(row: bytes) -> None:
    epoch = Epoch(0.0)
    with pytest.raises(ValueError, match="cannot be read"):
        epoch.restore(row)
    assert epoch.at(42.0) == 42
