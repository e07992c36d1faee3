"""Counters as kernels write them, without a kernel."""

from __future__ import annotations

import struct

import pytest

from rules.encoding import attribute, nested
from rules.traffic import _counts

NUMBERS = (3, 600, 2**40, 2**50)
STATUS, ZONE = attribute(3, b"\0\0\0\1"), attribute(18, b"\0\1")


def counters(kind: int, packets: int, size: int, *, padding: bytes = b"") -> bytes:
    numbers = (struct.pack("!Q", each) for each in (packets, size))
    one, two = (attribute(i, each) for i, each in enumerate(numbers, 1))
    return nested(kind, padding, one, padding, two)


@pytest.mark.parametrize("before", [b"", STATUS, STATUS + ZONE])
@pytest.mark.parametrize("between", [b"", ZONE])
@pytest.mark.parametrize("padding", [b"", attribute(5)])
def test_counters_are_found_wherever_they_stand(
    before: bytes, between: bytes, padding: bytes
) -> None:
    there = counters(9, *NUMBERS[:2], padding=padding)
    back = counters(10, *NUMBERS[2:], padding=padding)
    assert _counts(before + there + between + back) == NUMBERS
    assert _counts(before + there + between + back + ZONE) == NUMBERS


@pytest.mark.parametrize("attributes", [b"", STATUS, STATUS + counters(9, 1, 1)])
def test_what_is_not_counted_both_ways_is_not_counted(attributes: bytes) -> None:
    assert not _counts(attributes)
