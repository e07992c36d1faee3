"""The configuration read again while calls go on: what can change does, the rest is said and stays.

A file that cannot be used changes nothing. The kernel comes first among those who follow, because
it may refuse, and then nothing has changed either. What stands (calls, mappings, flows) stays as it
was made: limits, filters and denied ports are for what comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypedDict

import msgspec

from alg.config import Config
from alg.config_file import ConfigError
from alg.io.control import Handler, Request, RequestRefused
from rules.backend import InstallFailed

log = logging.getLogger("sipnat")

AT_START = frozenset(
    (
        "internal",
        "external",
        "external_addresses",
        "external_address",
        "stun_servers",
        "uplink",
        "control",
        "tcp",
        "relay_port",
        "max_connections",
        "mode6",
        "internal_prefix6",
        "external_prefix6",
        "ports",
        "queue",
        "on_failure",
        "store",
    )
)
"""The keys that are looked at when the gateway starts, and not again."""

Follow = Callable[[Config], Awaitable[None] | None]


class ReloadRow(TypedDict):
    """A key that has changed, which is "in use" or "at the next start"; names never change."""

    key: str
    state: str


class Reloading:
    """Has everybody go by what the configuration says by now; `handlers` are the commands.

    `follow` are those who do so, in order; the first may raise InstallFailed.
    """

    def __init__(
        self, config: Config, reread: Callable[[], Config], follow: Iterable[Follow]
    ) -> None:
        """Takes the configuration in use, and what reads it again or raises ConfigError."""
        self._config = config
        self._reread = reread
        self._follow = tuple(follow)
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.handlers: dict[str, Handler] = {"reload": self._answer}

    def hear(self) -> None:
        """Reloads soon, and says in the log what came of it (SIGHUP)."""
        self._task = asyncio.get_running_loop().create_task(self._reload_and_log())

    async def reload(self) -> list[ReloadRow]:
        """Goes by the configuration as it is now; returns what has changed of it.

        Raises ConfigError or InstallFailed, with nothing changed.
        """
        async with self._turn:
            wanted, used = self._reread(), self._config
            changed = [
                key
                for key in Config.__struct_fields__
                if getattr(wanted, key) != getattr(used, key)
            ]
            staying = {key: getattr(used, key) for key in changed if key in AT_START}
            if len(staying) < len(changed):
                self._config = await self._use(msgspec.structs.replace(wanted, **staying))
            return [
                {"key": key, "state": "at the next start" if key in staying else "in use"}
                for key in changed
            ]

    async def _use(self, config: Config) -> Config:
        for follow in self._follow:
            following = follow(config)
            if following is not None:
                await following
        return config

    async def _answer(self, request: Request) -> list[ReloadRow]:
        try:
            rows = await self.reload()
        except (ConfigError, InstallFailed) as error:
            raise RequestRefused(f"nothing has changed: {error}", "refused") from error
        _log(rows)
        return rows

    async def _reload_and_log(self) -> None:
        try:
            _log(await self.reload())
        except (ConfigError, InstallFailed) as error:
            log.error("the configuration is not reloaded, nothing has changed: %s", error)


def _log(rows: Iterable[ReloadRow]) -> None:
    for state, message in (
        ("in use", "reloaded: %s"),
        ("at the next start", "not changed before the next start: %s"),
    ):
        if keys := [row["key"] for row in rows if row["state"] == state]:
            log.info(message, ", ".join(keys))
