"""The configuration read again: who is told what, in which order, and what a refusal leaves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from alg.config import Config
from alg.config_file import ConfigError
from alg.daemon.reloading import AT_START, Reloading
from rules.backend import InstallFailed

CONFIG = Config(internal=("lan0",), external="wan0")


@dataclass
class Followers:
    """A kernel that may refuse, and somebody who follows it."""

    file: Config | ConfigError = CONFIG
    is_refusing: bool = False
    heard: list[tuple[str, Config]] = field(default_factory=list)

    def reread(self) -> Config:
        if isinstance(self.file, ConfigError):
            raise self.file
        return self.file

    def kernel(self, config: Config) -> None:
        if self.is_refusing:
            raise InstallFailed("no such thing")
        self.heard.append(("kernel", config))

    async def server(self, config: Config) -> None:
        await asyncio.sleep(0)
        self.heard.append(("server", config))

    def reloading(self) -> Reloading:
        return Reloading(CONFIG, self.reread, (self.kernel, self.server))


async def reload(reloading: Reloading) -> dict[str, str]:
    return {row["key"]: row["state"] for row in await reloading.reload()}


def test_what_changes_is_told_to_all_in_turn() -> None:
    followers = Followers(Config(internal=("lan0",), external="wan0", servers=("192.0.2.0/24",)))
    assert asyncio.run(reload(followers.reloading())) == {"servers": "in use"}
    assert followers.heard == [("kernel", followers.file), ("server", followers.file)]


def test_what_is_for_the_start_is_said_and_kept_from_everybody() -> None:
    file = Config(internal=("lan0",), external="wan1", queue=7, max_mappings=9)
    followers = Followers(file)

    async def twice() -> tuple[dict[str, str], dict[str, str]]:
        reloading = followers.reloading()
        return await reload(reloading), await reload(reloading)

    first, second = asyncio.run(twice())
    waiting = {"external": "at the next start", "queue": "at the next start"}
    assert (first, second) == (waiting | {"max_mappings": "in use"}, waiting)
    used = Config(internal=("lan0",), external="wan0", max_mappings=9)
    assert followers.heard == [("kernel", used), ("server", used)]


@pytest.mark.parametrize("fault", ["file", "kernel"])
def test_a_refusal_changes_nothing_and_the_next_try_counts(fault: str) -> None:
    file = Config(internal=("lan0",), external="wan0", max_mappings=9)
    followers = Followers(file, is_refusing=fault == "kernel")
    if fault == "file":
        followers.file = ConfigError("sipnat.toml: is not TOML")

    async def run() -> None:
        reloading = followers.reloading()
        with pytest.raises((ConfigError, InstallFailed)):
            await reloading.reload()
        assert followers.heard == []
        followers.file, followers.is_refusing = file, False
        assert await reload(reloading) == {"max_mappings": "in use"}

    asyncio.run(run())


def test_without_a_change_nobody_is_told() -> None:
    followers = Followers()
    assert asyncio.run(reload(followers.reloading())) == {}
    assert followers.heard == []


def test_the_keys_for_the_start_exist() -> None:
    assert set(Config.__struct_fields__) >= AT_START
