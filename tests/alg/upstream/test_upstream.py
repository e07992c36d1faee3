"""What is concluded from what is above, without a network: which address, or hands off."""

from __future__ import annotations

import asyncio
import logging

import pytest

from alg.config import Config
from alg.upstream.mapper import Mapper
from alg.upstream.nat import Nat, NatType
from alg.upstream.upstream import How, Upstream

PRIVATE, SHARED, PUBLIC = "192.168.1.2", "100.64.7.7", "203.0.113.1"
CONE = Nat(NatType.PORT_RESTRICTED, PUBLIC, keeps_ports=True)
SILENT = Nat(NatType.BLOCKED)


class Looking(Upstream):
    """An `Upstream` whose servers say what the test has put into `answer`."""

    def __init__(self, wire: str, *, mode: str = "auto", servers: tuple[str, ...] = ()) -> None:
        config = Config(
            internal=("lan0",), external="wan0", external_address=mode, stun_servers=servers
        )
        super().__init__(config, wire, lambda device: None)
        self.answer: Nat | None = SILENT

    async def _ask(self, wire: str) -> Nat | None:
        return self.answer

    def look_at(self, answer: Nat | None = None) -> tuple[How, str, bool]:
        """Returns how the address is known, which it is, and whether SIP passes as it is."""
        self.answer = answer
        asyncio.run(self.look())
        return self.found.how, self.found.public, self.found.is_hands_off


def test_an_address_that_is_given_is_the_one() -> None:
    assert Looking(PRIVATE, mode=PUBLIC).look_at() == (How.CONFIGURED, PUBLIC, False)
    assert Looking(PUBLIC, mode=PUBLIC).look_at() == (How.CONFIGURED, PUBLIC, False)


def test_auto_asks_nobody_where_the_interface_has_an_address_of_the_internet() -> None:
    looking = Looking(PUBLIC, servers=("stun.example.com",))
    assert looking.look_at(Nat(NatType.SYMMETRIC, PUBLIC)) == (How.INTERFACE, PUBLIC, False)


@pytest.mark.parametrize("wire", [PRIVATE, SHARED, "10.1.2.3", "172.31.0.1"])
def test_auto_asks_where_the_interface_has_a_private_one(wire: str) -> None:
    looking = Looking(wire, servers=("stun.example.com",))
    assert looking.look_at(CONE) == (How.STUN, PUBLIC, False)


def test_auto_goes_on_with_the_interface_where_nobody_tells(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looking = Looking(PRIVATE)
    for _ in range(3):
        assert looking.look_at() == (How.INTERFACE, PRIVATE, False)
    assert caplog.text.count("another NAT is above") == 1


def test_a_gateway_that_is_slow_at_start_is_heard_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow:
        gateway, wire, is_natpmp = "192.168.1.1", PRIVATE, False

        def __init__(self, *arguments: object) -> None:
            pass

        async def open(self) -> None:
            pass

        async def address(self) -> str:
            await asyncio.sleep(0.05)
            return PUBLIC

    monkeypatch.setattr("alg.upstream.upstream.START_PATIENCE", 0.01)
    monkeypatch.setattr("alg.upstream.upstream.Mapper", Slow)
    looking = Looking(PRIVATE)
    looking._default_gateway = lambda device: Slow.gateway
    assert looking.look_at() == (How.INTERFACE, PRIVATE, False)
    assert looking.look_at() == (How.PCP, PUBLIC, False)


def test_stun_passes_all_sip_where_nobody_tells() -> None:
    looking = Looking(PUBLIC, mode="stun", servers=("stun.example.com",))
    assert looking.look_at(SILENT) == (How.STUN, PUBLIC, True)
    assert looking.look_at(CONE) == (How.STUN, PUBLIC, False)


@pytest.mark.parametrize(
    ("nat", "word"),
    [
        (Nat(NatType.SYMMETRIC, PUBLIC), "symmetric"),
        (Nat(NatType.FULL_CONE, PUBLIC, keeps_ports=False), "does not keep port numbers"),
    ],
)
def test_a94_a_nat_by_which_no_address_would_be_right_is_left_alone(
    nat: Nat, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    looking = Looking(PRIVATE, servers=("stun.example.com",))
    for _ in range(3):
        assert looking.look_at(nat) == (How.STUN, PRIVATE, True)
    assert sum(word in each.message for each in caplog.records if each.levelname == "WARNING") == 1
    assert looking.look_at(CONE) == (How.STUN, PUBLIC, False)
    assert "rewritten again" in caplog.text


def test_a_server_that_is_silent_for_once_changes_nothing() -> None:
    looking = Looking(PRIVATE, servers=("stun.example.com",))
    assert looking.look_at(CONE) == (How.STUN, PUBLIC, False)
    for nothing in (SILENT, None):
        assert looking.look_at(nothing) == (How.STUN, PUBLIC, False)


@pytest.mark.parametrize(
    ("mode", "servers", "stays"), [("auto", (), 2), ("pcp", (), 2), ("stun", ("stun.example",), 9)]
)
def test_what_an_earlier_run_has_named_counts_while_nobody_tells_anything_else(
    mode: str, servers: tuple[str, ...], stays: int, caplog: pytest.LogCaptureFixture
) -> None:
    looking = Looking(PRIVATE, mode=mode, servers=servers)
    looking.remember(PUBLIC)
    for _ in range(stays):
        assert looking.look_at() == (How.EARLIER, PUBLIC, False)
    assert caplog.text.count(f"messages name {PUBLIC} as before") == 1
    if mode != "stun":
        assert looking.look_at()[1] == PRIVATE
    elif servers:
        assert looking.look_at(Nat(NatType.SYMMETRIC, PUBLIC)) == (How.STUN, PRIVATE, True)


def test_a_private_address_that_the_interface_had_is_not_taken_for_a_public_one() -> None:
    looking = Looking(PRIVATE)
    looking.remember("192.168.1.3")
    assert looking.look_at() == (How.INTERFACE, PRIVATE, False)


def test_another_address_of_the_interface_is_looked_at_at_once() -> None:
    async def scene() -> None:
        looking = Looking(PRIVATE, servers=("stun.example.com",))
        looking.answer = CONE
        await looking.look()
        changed = asyncio.Event()
        watching = asyncio.create_task(looking.watch(changed.set))
        looking.move("192.168.1.3")
        assert (looking.found.public, looking.found.wire) == (PUBLIC, "192.168.1.3")
        await asyncio.wait_for(changed.wait(), 5.0)
        assert looking.found.nat == CONE
        watching.cancel()

    asyncio.run(scene())


def test_another_gateway_that_tells_the_same_is_heeded_too() -> None:
    class Asking(Looking):
        async def _ask_gateway(self, wire: str) -> str | None:
            self._asked = Mapper(self.gateway, wire, "wan0", lambda: None)
            return PUBLIC

        gateway = "192.168.1.1"

    async def scene() -> None:
        asking = Asking(PRIVATE, mode="pcp")
        await asking.look()
        asking.gateway = "192.168.1.254"
        changed = asyncio.Event()
        watching = asyncio.create_task(asking.watch(changed.set))
        asking.move(PRIVATE)
        await asyncio.wait_for(changed.wait(), 5.0)
        assert asking.mapper is not None and asking.mapper.gateway == "192.168.1.254"
        watching.cancel()

    asyncio.run(scene())


def test_what_is_found_of_an_address_that_goes_meanwhile_does_not_count() -> None:
    class Leaving(Looking):
        async def _ask(self, wire: str) -> Nat | None:
            self.move("192.168.1.3")
            return CONE

    looking = Leaving(PRIVATE, servers=("stun.example.com",))
    asyncio.run(looking.look())
    assert (looking.found.wire, looking.found.public) == ("192.168.1.3", "192.168.1.3")


def test_an_interface_by_itself_takes_its_new_address_along() -> None:
    looking = Looking(PUBLIC)
    looking.look_at()
    looking.move("203.0.113.2")
    assert looking.found.public == "203.0.113.2"


def test_the_kind_of_nat_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    looking = Looking(PRIVATE, servers=("stun.example.com",))
    for _ in range(2):
        looking.look_at(CONE)
    assert caplog.text.count("port restricted cone") == 1
