"""A table has one sipnat, whoever asks and however often."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from alg.daemon.claim import claimed, is_claimed
from alg.daemon.settings import StartError

QUESTIONS = 300  # twice as many as wait at a socket that nobody heeds
TABLE = f"sipnat-test-{os.getpid()}"


def test_a_table_is_claimed_by_one_and_as_long_as_he_runs() -> None:
    async def run() -> None:
        assert not is_claimed(TABLE)
        with claimed(TABLE):
            assert is_claimed(TABLE)
            with pytest.raises(StartError, match="another sipnat"), claimed(TABLE):
                pass
        assert not is_claimed(TABLE)

    asyncio.run(run())


def test_it_may_be_asked_for_again_and_again() -> None:
    async def run() -> None:
        with claimed(TABLE):
            for _ in range(QUESTIONS):
                assert is_claimed(TABLE)
                await asyncio.sleep(0)

    asyncio.run(run())


def test_who_does_not_listen_at_its_name_has_no_table(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with claimed(TABLE):
            assert "somebody else" in caplog.text

    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(f"\0{TABLE}")
        asyncio.run(run())
