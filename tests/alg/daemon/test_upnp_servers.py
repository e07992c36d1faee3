"""UPnP without its library: one sentence, and everything else goes on."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import cast

import pytest

from alg.config import Config
from alg.daemon.upnp_servers import upnp_servers
from alg.port_manager.leases import Leases


def test_a_missing_library_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "async_upnp_client.client", None)
    for module in ("alg.port_manager.upnp", "alg.port_manager.igd_device"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    config = Config(internal=("lan0",), external="wan0", upnp=True)
    with caplog.at_level(logging.WARNING):
        assert upnp_servers(config, cast(Leases, None)) == []
    (message,) = caplog.messages
    assert message.startswith("UPnP is not served: ")
    assert message.endswith("pip install 'sipnat[upnp]'")


def test_the_library_is_not_loaded_unless_it_is_wanted() -> None:
    code = "import sys, alg.daemon.process; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
