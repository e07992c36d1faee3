"""What UPnP's actions do with leases, and with which number they are refused."""

from __future__ import annotations

import re

import pytest

from alg.port_manager.igd import ActionRefused, Entry, PortMappings
from alg.port_manager.leases import Ask, LeaseLimits, Leases
from alg.port_manager.refusal import GatewayFailed
from nat_table.binding import ANYONE, Permit
from nat_table.endpoint import TCP, UDP, Endpoint, parse_endpoint
from nat_table.lease import Source
from nat_table.table import NatTable
from tests.nat_table.phones import new_table

CLIENT, OTHER = "10.0.0.20", "10.0.0.21"
REMOTE = "198.51.100.66"
DAY = 86400.0


class Gateway:
    """The entries of a gateway, over a table of their own."""

    def __init__(self, *, is_secure: bool = True) -> None:
        self.table: NatTable = new_table()
        self.leases = Leases(self.table, LeaseLimits(), lambda: self.table.take_changes())
        self.mappings = PortMappings(self.leases, is_secure=is_secure)

    def add(
        self,
        external: int,
        internal: str = f"{CLIENT}:4000",
        *,
        client: str = CLIENT,
        remote: str = "",
        description: str = "a game",
        lifetime: int = 3600,
        now: float = 0.0,
        is_exact: bool = True,
    ) -> int:
        """Adds an entry for UDP."""
        address, _, port = internal.rpartition(":")
        where = Endpoint(address, int(port))
        entry = Entry(remote, external, UDP, where, description, lifetime)
        return self.mappings.add(client, entry, now, is_exact=is_exact)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def refused(code: int) -> pytest.RaisesExc[ActionRefused]:
    """Expects a refusal by its number."""

    def is_this(error: ActionRefused) -> bool:
        return error.code == code and bool(re.fullmatch(r"[^\n]+[^.\n]", str(error)))

    return pytest.raises(ActionRefused, check=is_this)


def test_an_entry_is_a_lease_open_to_all(gateway: Gateway) -> None:
    assert gateway.add(5000) == 5000
    (lease,) = gateway.leases.all()
    assert (lease.source, lease.name) == (Source.UPNP, "a game")
    assert lease.permits == (ANYONE,)
    internal = parse_endpoint(f"{CLIENT}:4000")
    assert gateway.mappings.entry(CLIENT, "", 5000, UDP, 600.0) == Entry(
        "", 5000, UDP, internal, "a game", 3000
    )
    gateway.mappings.delete(CLIENT, "", 5000, UDP, 1.0)
    assert not len(gateway.table)


def test_a_lifetime_of_0_is_the_longest(gateway: Gateway) -> None:
    gateway.add(5000, lifetime=0)
    assert gateway.mappings.entry_at(CLIENT, 0, 0.0).lifetime == DAY
    gateway.add(5000, lifetime=604800)
    assert gateway.mappings.entry_at(CLIENT, 0, 0.0).lifetime == DAY
    gateway.add(5000, lifetime=60)
    assert gateway.mappings.entry_at(CLIENT, 0, 0.0).lifetime == 60


def test_another_description_renames_the_entry(gateway: Gateway) -> None:
    gateway.add(5000)
    gateway.add(5000, description="another")
    assert [lease.name for lease in gateway.leases.all()] == ["another"]


def test_each_remote_host_has_an_entry_of_its_own(gateway: Gateway) -> None:
    gateway.add(5000, remote=REMOTE)
    gateway.add(5000, remote="198.51.100.67")
    permits = [lease.permits for lease in gateway.leases.all()]
    assert permits == [(Permit(REMOTE),), (Permit("198.51.100.67"),)]
    assert gateway.mappings.entry(CLIENT, REMOTE, 5000, UDP, 0.0).description == "a game"
    with refused(714):
        gateway.mappings.delete(CLIENT, "", 5000, UDP, 0.0)
    gateway.mappings.delete(CLIENT, REMOTE, 5000, UDP, 0.0)
    assert len(gateway.leases.all()) == 1


def test_descriptions_are_cut(gateway: Gateway) -> None:
    gateway.add(5000, description="x" * 1000)
    assert gateway.mappings.entry_at(CLIENT, 0, 0.0).description == "x" * 64


@pytest.mark.parametrize(
    ("code", "external", "internal", "remote"),
    [
        (606, 5000, f"{OTHER}:4000", ""),
        (606, 80, f"{CLIENT}:4000", ""),
        (606, 5000, f"{CLIENT}:80", ""),
        (716, 0, f"{CLIENT}:4000", ""),
        (732, 5000, f"{CLIENT}:0", ""),
        (402, 5000, "phone:4000", ""),
        (402, 5000, ":4000", ""),
        (402, 5000, "2001:db8::1:4000", ""),
        (402, 5000, f"{CLIENT}:4000", "server.example.com"),
        (402, 5000, f"{CLIENT}:4000", "198.51.100.0/24"),
    ],
)
def test_what_is_wrong_or_not_allowed_is_refused(
    gateway: Gateway, code: int, external: int, internal: str, remote: str
) -> None:
    with refused(code):
        gateway.add(external, internal, remote=remote)
    assert not len(gateway.table)


def test_a_taken_port_is_a_conflict_and_what_stands_stays(gateway: Gateway) -> None:
    gateway.add(5000)
    with refused(718):
        gateway.add(5000, f"{OTHER}:4000", client=OTHER)
    with refused(718):
        gateway.add(5000, f"{CLIENT}:4002")
    with refused(718):
        gateway.add(5002)
    assert [str(lease.binding.external.port) for lease in gateway.leases.all()] == ["5000"]


def test_any_port_is_another_where_the_wanted_one_is_taken(gateway: Gateway) -> None:
    gateway.add(5000)
    port = gateway.add(5000, f"{OTHER}:4000", client=OTHER, is_exact=False)
    assert port != 5000
    assert gateway.add(0, f"{OTHER}:4000", client=OTHER, is_exact=False) == port


def test_in_secure_mode_a_client_has_no_say_in_others_entries(gateway: Gateway) -> None:
    gateway.add(5000)
    with refused(606):
        gateway.mappings.delete(OTHER, "", 5000, UDP, 0.0)
    with refused(606):
        gateway.mappings.entry(OTHER, "", 5000, UDP, 0.0)
    with refused(713):
        gateway.mappings.entry_at(OTHER, 0, 0.0)
    with refused(730):
        gateway.mappings.delete_range(OTHER, range(1024, 65536), UDP, 0.0)
    assert len(gateway.leases.all()) == 1


def test_without_secure_mode_a_client_has() -> None:
    gateway = Gateway(is_secure=False)
    gateway.add(5000, client=OTHER)
    assert gateway.mappings.entry_at(OTHER, 0, 0.0).internal.address == CLIENT
    gateway.mappings.delete(OTHER, "", 5000, UDP, 0.0)
    assert not len(gateway.table)


def test_a_range_is_deleted_by_protocol(gateway: Gateway) -> None:
    for port in (5000, 5002, 5004):
        gateway.add(port, f"{CLIENT}:{port}")
    with refused(730):
        gateway.mappings.delete_range(CLIENT, range(5000, 5004), TCP, 0.0)
    with refused(733):
        gateway.mappings.delete_range(CLIENT, range(5004, 5000), UDP, 0.0)
    gateway.mappings.delete_range(CLIENT, range(5000, 5003), UDP, 0.0)
    assert [lease.binding.external.port for lease in gateway.leases.all()] == [5004]


def test_no_entry_is_no_entry(gateway: Gateway) -> None:
    with refused(714):
        gateway.mappings.delete(CLIENT, "", 5000, UDP, 0.0)
    with refused(713):
        gateway.mappings.entry_at(CLIENT, -1, 0.0)


def test_what_was_asked_for_in_another_way_is_not_upnps(gateway: Gateway) -> None:
    ask = Ask(Source.API, UDP, Endpoint(CLIENT, 4000), 600.0, wanted=5000)
    gateway.leases.request(ask, 0.0)
    with refused(713):
        gateway.mappings.entry_at(CLIENT, 0, 0.0)
    with refused(714):
        gateway.mappings.delete(CLIENT, "", 5000, UDP, 0.0)
    assert len(gateway.leases.all()) == 1


def test_a_kernel_that_refuses_is_a_failed_action() -> None:
    gateway = Gateway()

    def fail() -> None:
        gateway.table.revert(gateway.table.take_changes())
        raise GatewayFailed("the kernel refused the mapping: no memory")

    leases = Leases(gateway.table, LeaseLimits(), fail)
    gateway.mappings = PortMappings(leases, is_secure=True)
    with refused(501):
        gateway.add(5000)
    assert not len(gateway.table)
