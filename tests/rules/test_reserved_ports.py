"""The ports that the kernel is asked to leave alone, with a file in place of the sysctl."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rules import reserved_ports
from rules.reserved_ports import parse_ports, render_ports


@pytest.fixture
def sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ip_local_reserved_ports"
    monkeypatch.setattr(reserved_ports, "_SYSCTL", path)
    return path


@pytest.mark.parametrize("text", ["", "80", "80,443", "8080,16384-24575,30000-30001"])
def test_text_comes_back(text: str) -> None:
    assert render_ports(parse_ports(f"{text}\n")) == text


@pytest.mark.parametrize("before", ["", "8080", "16390", "8080,16000-16999,24575-24580"])
def test_admins_ports_are_kept(sysctl: Path, before: str) -> None:
    sysctl.write_text(f"{before}\n")
    ours = reserved_ports.reserve((16384, 24575))
    assert parse_ports(sysctl.read_text()) == parse_ports(before) | set(range(16384, 24576))
    reserved_ports.release(ours)
    assert sysctl.read_text() == f"{before}\n"


def test_pool_left_by_an_earlier_run_is_ours(sysctl: Path) -> None:
    sysctl.write_text("8080,16384-24575\n")
    reserved_ports.release(reserved_ports.reserve((16384, 24575)))
    assert sysctl.read_text() == "8080\n"


def test_what_is_reserved_already_is_not_written_again(
    sysctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    sysctl.write_text("8080,16384-24575\n")
    monkeypatch.setattr(Path, "write_text", refuse)
    assert reserved_ports.reserve((16384, 24575)) == set(range(16384, 24576))
    with pytest.raises(OSError):
        reserved_ports.reserve((16384, 24576))
