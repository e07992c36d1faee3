"""The public address in the table and the wire's in the kernel, exchanged in between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Admitted, Closed, Opened
from nat_table.endpoint import Endpoint, Transport
from rules.aliases import AliasedBackend, Aliases
from rules.backend import Backend
from rules.memory import MemoryBackend
from rules.settings import Settings

PUBLIC, WIRE = "203.0.113.1", "192.168.1.2"
OTHER_PUBLIC, OTHER_WIRE = "203.0.113.2", "192.168.1.3"
PINHOLE = Pinhole(Owner("call"), 60.0)
BINDING = Binding(Transport.UDP, Endpoint("10.0.0.20", 4000), Endpoint(PUBLIC, 4000), Kind.RTP, 0.0)
WIRED = replace(BINDING, external=Endpoint(WIRE, 4000))


@pytest.fixture
def kernel() -> MemoryBackend:
    return MemoryBackend(Settings(("lan0",), "wan0", (WIRE,)))


@pytest.fixture
def aliases() -> Aliases:
    aliases = Aliases()
    aliases.point(PUBLIC, WIRE)
    return aliases


@pytest.fixture
def backend(kernel: MemoryBackend, aliases: Aliases) -> Backend:
    return AliasedBackend(kernel, aliases)


def test_what_is_committed_is_on_the_wire_and_what_is_listed_in_public(
    kernel: MemoryBackend, backend: Backend
) -> None:
    backend.commit([Opened(BINDING, PINHOLE), Admitted(BINDING, "203.0.113.10")])
    assert (kernel.listing(), backend.listing()) == ([WIRED], [BINDING])
    backend.commit([Closed(BINDING, (PINHOLE,))])
    assert kernel.listing() == []


def test_a_reconciled_kernel_has_the_address_on_the_wire(
    kernel: MemoryBackend, backend: Backend
) -> None:
    for _ in backend.reconcile([(BINDING, {"203.0.113.10"})]):
        pass
    assert kernel.listing() == [WIRED]


def test_a_move_in_public_leaves_the_kernel_as_it_was(
    kernel: MemoryBackend, backend: Backend, aliases: Aliases
) -> None:
    backend.commit([Opened(BINDING, PINHOLE)])
    moved = replace(BINDING, external=Endpoint(OTHER_PUBLIC, 4000))
    aliases.point(OTHER_PUBLIC, WIRE)
    backend.commit([Closed(BINDING, (PINHOLE,)), Opened(moved, PINHOLE)])
    assert (kernel.listing(), backend.listing()) == ([WIRED], [moved])


def test_a_move_of_both_closes_what_stood_on_the_former_wire(
    kernel: MemoryBackend, backend: Backend, aliases: Aliases
) -> None:
    backend.commit([Opened(BINDING, PINHOLE)])
    moved = replace(BINDING, external=Endpoint(OTHER_PUBLIC, 4000))
    aliases.point(OTHER_PUBLIC, OTHER_WIRE)
    backend.commit([Closed(BINDING, (PINHOLE,)), Opened(moved, PINHOLE)])
    assert kernel.listing() == [replace(BINDING, external=Endpoint(OTHER_WIRE, 4000))]


def test_an_address_that_is_its_own_is_no_alias_any_more(aliases: Aliases) -> None:
    aliases.point(PUBLIC, OTHER_WIRE)
    assert aliases.public(Endpoint(WIRE, 1)) == Endpoint(WIRE, 1)
    aliases.point(OTHER_WIRE, OTHER_WIRE)
    for address in (WIRE, OTHER_WIRE, "2001:db8::1"):
        end = Endpoint(address, 5060)
        assert (aliases.wire(end), aliases.public(end)) == (end, end)
    assert aliases.wire(Endpoint(PUBLIC, 1)) == Endpoint(OTHER_WIRE, 1), "to be closed there"
