"""What `sipnat setup` says is to be done next."""

from __future__ import annotations

from pathlib import Path

import pytest

from alg.cli import setup
from alg.config_text import Setting
from alg.daemon.proposal import Proposal

CHANGED = {"queue": Setting(5061)}


@pytest.mark.parametrize(
    ("path", "uplink", "runs", "command"),
    [
        ("/etc/sipnat/sipnat.toml", 0, False, "systemctl enable --now sipnat"),
        ("/etc/sipnat/sipnat.toml", 0, True, "systemctl restart sipnat"),
        ("/etc/sipnat/sipnat2.toml", 2, False, "systemctl enable --now sipnat@2"),
        ("/etc/sipnat/sipnat2.toml", 0, False, "sipnat run --config /etc/sipnat/sipnat2.toml"),
        ("/srv/sipnat.toml", 0, True, "stop it, then sipnat run --config /srv/sipnat.toml"),
    ],
)
def test_the_next_command(
    path: str,
    uplink: int,
    runs: bool,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proposal = Proposal([], [], "off", CHANGED, [], [], uplink, runs, "")
    monkeypatch.setattr(setup, "_UNITS", (tmp_path,))
    first, _ = setup._next_lines(Path(path), proposal)
    assert first.text == f"next: {command}"
    monkeypatch.setattr(setup, "_UNITS", (tmp_path / "missing",))
    first, last = setup._next_lines(Path(path), proposal)
    assert first.text.endswith(f"sipnat run --config {path}")
    assert last.text == f"then: sipnat doctor --config {path}"
