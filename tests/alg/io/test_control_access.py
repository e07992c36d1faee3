"""Who may make the control socket's name mean something else gains nothing by it."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from alg.io.control import ControlServer


def test_who_has_the_directory_opens_no_file_of_root_by_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, secret = tmp_path / "control.sock", tmp_path / "secret"
    secret.touch(0o600)

    class Watched(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(str(address))
            path.unlink()
            path.symlink_to(secret)

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", Watched)
            server = ControlServer(path, {})
            await server.start()
        await server.stop()

    asyncio.run(scenario())
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
