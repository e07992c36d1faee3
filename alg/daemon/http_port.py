"""The HTTP port, if there is to be one: opened, and closed, while everything else goes on.

What it takes is loaded when it is wanted, and messages are counted from then on: without the port
nothing is paid for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from alg.config import Http
from alg.daemon.scrape import Scrape
from alg.io.control import Handler
from alg.observe.observers import Observers

if TYPE_CHECKING:
    from alg.daemon.status_page import StatusPage

log = logging.getLogger("sipnat")


class HttpPort:
    """Metrics and the status page, at the address that the configuration names."""

    def __init__(self, scrape: Scrape, observers: Observers) -> None:
        self._scrape = scrape
        self._observers = observers
        self._page: StatusPage | None = None

    async def open(self, http: Http, handlers: Mapping[str, Handler]) -> None:
        """Serves what these commands tell; where that cannot be, the log says why."""
        if not http.listen:
            return
        try:
            page = (await asyncio.to_thread(_load))(http, handlers, self._scrape)
            await page.start()
        except ImportError as error:
            log.warning("there are no metrics and no status page: install sipnat[http] (%s)", error)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            log.warning(
                "there are no metrics and no status page: cannot listen at %s (%s)",
                http.listen,
                reason,
            )
        else:
            self._page = page
            self._observers.add(self._scrape.metrics)

    async def close(self) -> None:
        """Serves and counts no more."""
        if self._page is not None:
            self._observers.remove(self._scrape.metrics)
            await self._page.close()
            self._page = None


def _load() -> type[StatusPage]:
    """Loads what serves the page; in a thread, for that takes a while."""
    from alg.daemon.status_page import StatusPage

    return StatusPage
