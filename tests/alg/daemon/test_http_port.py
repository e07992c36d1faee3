"""The HTTP port is opened if it is wanted, and what keeps it shut is one line in the log."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator

import pytest

from alg.config import Config, Http
from alg.daemon.http_port import HttpPort
from alg.daemon.ledger import Ledger
from alg.daemon.scrape import Scrape
from alg.observe.media_activity import MediaActivity
from alg.observe.observers import Observers
from tests.alg.daemon.switchboard import Switchboard


@pytest.fixture
def observers() -> Observers:
    return Observers()


@pytest.fixture
def port(observers: Observers) -> HttpPort:
    board = Switchboard()
    config = Config(internal=("lan0",), external="wan0")
    ledger, media = Ledger(board.table, board.kernel), MediaActivity()
    scrape = Scrape(config, board.gateway, ledger, board.kernel, board.connections, media)
    return HttpPort(scrape, observers)


@pytest.fixture
def taken() -> Iterator[str]:
    """Yields an address and a port where somebody listens already."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def open_and_close(port: HttpPort, listen: str, observers: Observers) -> tuple[bool, bool]:
    """Returns whether messages are counted while the port is open, and afterwards."""

    async def scene() -> tuple[bool, bool]:
        await port.open(Http(listen=listen), {})
        during = bool(observers)
        await port.close()
        return during, bool(observers)

    return asyncio.run(scene())


def test_without_a_port_nothing_is_paid_for(port: HttpPort, observers: Observers) -> None:
    assert open_and_close(port, "", observers) == (False, False)


def test_messages_are_counted_while_it_is_open(port: HttpPort, observers: Observers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listen = f"127.0.0.1:{listener.getsockname()[1]}"
    assert open_and_close(port, listen, observers) == (True, False)
    assert open_and_close(port, listen, observers) == (True, False), "it opens again"


def test_a_port_that_is_taken_is_one_line_in_the_log(
    port: HttpPort, observers: Observers, taken: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_and_close(port, taken, observers) == (False, False)
    [line] = [record.getMessage() for record in caplog.records]
    assert line == (
        f"there are no metrics and no status page: cannot listen at {taken} "
        "(Address already in use)"
    )


@pytest.mark.parametrize("library", ["aiohttp", "prometheus_client"])
def test_a_library_that_is_not_there_is_named_with_the_extra(
    library: str,
    port: HttpPort,
    observers: Observers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for module in ("alg.daemon.status_page", "alg.io.web", "alg.observe.exposition"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for module in [each for each in sys.modules if each.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    assert open_and_close(port, "127.0.0.1:9570", observers) == (False, False)
    [line] = [record.getMessage() for record in caplog.records]
    assert "sipnat[http]" in line and library in line
