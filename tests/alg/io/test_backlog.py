"""How long packets wait is told from the numbers that the kernel gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from alg.io import backlog
from alg.io.backlog import Backlog


class Kernel:
    """The file in which the kernel tells of its queues."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.queue(0)

    def queue(self, latest: int) -> None:
        """Numbers packets up to this one."""
        lines = f"    7  123     0 2 65535     0     0     {latest + 9}  1\n"
        self._path.write_text(lines + f" 5060  123     0 2 65535     0     0     {latest}  1\n")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(backlog, "_QUEUES", str(tmp_path / "queues"))
    return Kernel(tmp_path / "queues")


@pytest.mark.parametrize("first", [1, 2**32 - 50])
def test_what_was_queued_at_a_look_has_waited_since(kernel: Kernel, first: int) -> None:
    def number(offset: int) -> int:
        return (first + offset) % 2**32

    backlog = Backlog(5060)
    kernel.queue(number(99))
    assert backlog.waited(number(10), 1.0) == 0.0
    kernel.queue(number(199))
    assert backlog.waited(number(50), 1.5) == 0.5
    assert backlog.waited(number(98), 1.75) == 0.75
    assert backlog.waited(number(99), 2.0) == 0.5
    assert backlog.waited(number(150), 2.25) == 0.75
    assert backlog.waited(number(199), 3.0) == 0.0
    backlog.close()


def test_what_comes_after_a_pause_has_not_waited_through_it(kernel: Kernel) -> None:
    backlog = Backlog(5060)
    kernel.queue(9)
    backlog.waited(5, 1.0)
    backlog.forget()
    assert backlog.waited(6, 9.0) == 0.0
    backlog.close()


def test_where_the_kernel_tells_nothing_nothing_waits(kernel: Kernel, tmp_path: Path) -> None:
    other = Backlog(4)
    assert (other.waited(1, 1.0), other.waited(1, 2.0)) == (0.0, 0.0)
    other.close()
    (tmp_path / "queues").unlink()
    silent = Backlog(5060)
    assert (silent.waited(1, 1.0), silent.waited(1, 2.0)) == (0.0, 0.0)
    silent.close()
