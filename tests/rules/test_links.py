"""What of the kernel's answers about links the lab's kernels cannot give."""

from __future__ import annotations

from pathlib import Path

import pytest

from rules import links


def test_the_interface_below_pppoe_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "pppoe"
    table.write_text(
        "Id         Address              Device\n0000A100   00:53:00:12:34:56        eth0.7\n"
    )
    monkeypatch.setattr(links, "_PPPOE", table)
    assert links._pppoe_carriers() == {"eth0.7"}
    monkeypatch.setattr(links, "_PPPOE", tmp_path / "missing")
    assert links._pppoe_carriers() == frozenset()
