"""The quick part of the matrix: every phone's usual calls through the real gateway.

And one cell without it, which shows that the matrix sees what is broken.
"""

from __future__ import annotations

import shutil

import pytest

from tests.interop.matrix import CANNOT, FAILED, OK, play, quick_cells
from tests.interop.stage import Cell
from tests.lab.namespace import exit_on_signals

pytestmark = [
    pytest.mark.netns,
    pytest.mark.timeout(200),
    pytest.mark.skipif(not shutil.which("kamailio"), reason="needs Kamailio"),
]


@pytest.fixture(scope="session", autouse=True)
def clean_up_on_signals() -> None:
    exit_on_signals()


@pytest.mark.parametrize("cell", quick_cells(), ids=str)
def test_a_real_phone_calls_through_the_gateway(cell: Cell) -> None:
    result = play(cell)
    if result.state == CANNOT:
        pytest.skip(f"{cell.phone}: {result.why}")
    assert result.state == OK, result.why


def test_without_the_gateway_nobody_is_heard() -> None:
    result = play(Cell("baresip", "kamailio", "udp", "outgoing", "none"))
    assert (result.state, result.why) == (FAILED, "alice rtp received 0")
