"""A table that is too simple to be wrong: plain lists, looked through every time."""

import gc
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Self

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, Owner, Permit, Pinhole
from nat_table.changes import (
    Admitted,
    Change,
    Closed,
    Excluded,
    Forbidden,
    Opened,
    Permitted,
    Turned,
)
from nat_table.endpoint import Endpoint, Transport
from nat_table.entry import Claim, Entry
from nat_table.prefix import PrefixTranslation
from nat_table.refusal import (
    BindRefused,
    NoExternalAddress,
    NoFreePort,
    QuotaExceeded,
    RateExceeded,
)
from tests.nat_table.draws import stranger

ALL = [f"203.0.113.{number}" for number in range(1, 5)]
ALL6 = [f"2001:db8::{number}" for number in range(1, 4)]
ADDRESSES = [*ALL[:2], *ALL6[:2]]
TRANSLATIONS = [
    None,
    PrefixTranslation(IPv6Network("fd00::/56"), IPv6Network("2001:db8:1::/56")),
    PrefixTranslation(IPv6Network("fd00::/56"), IPv6Network("fd00::/56")),
]
BEHAVIOR = Behavior(
    pool=(20000, 20007),
    denied_ports=frozenset({5061, 20002}),
    max_mappings=14,
    max_mappings_per_host=7,
    max_new_per_second=5,
)
Key = tuple[Transport, Endpoint]
_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


@dataclass
class Model:
    """Bindings with their pinholes, pairs made together, (end, binding) of every quarantine, and
    (when, host) of every binding opened.
    """

    addresses: list[str]
    translation: PrefixTranslation | None
    bindings: dict[Key, tuple[Binding, dict[Owner, Pinhole]]] = field(default_factory=dict)
    pairs: list[tuple[Binding, Binding]] = field(default_factory=list)
    quarantine: list[tuple[float, Binding]] = field(default_factory=list)
    opened: list[tuple[float, str]] = field(default_factory=list)

    def copy(self) -> Self:
        """Returns a model that goes its own way; what it is made of never changes."""
        return replace(
            self,
            addresses=list(self.addresses),
            bindings={key: (kept, dict(claims)) for key, (kept, claims) in self.bindings.items()},
            pairs=list(self.pairs),
            quarantine=list(self.quarantine),
            opened=list(self.opened),
        )

    def count(self, host: str) -> int:
        return sum(endpoint.address == host for _, endpoint in self.bindings)

    def recent(self, host: str, now: float) -> int:
        return sum(opened == host and when > now - 1.0 for when, opened in self.opened)

    def external_address(self, host: str) -> str | None:
        stands = {b.external.address for b, _ in self.bindings.values() if b.internal[0] == host}
        assert len(stands) <= 1
        if self.is_translated(host):
            assert self.translation is not None
            return self.translation.to_external(host)
        family = [each for each in self.addresses if (":" in each) == (":" in host)]
        return stands.pop() if stands else family[zlib.crc32(host.encode()) % len(family)]

    def unused_addresses(self, like: str) -> list[str]:
        family = ALL6 if ":" in like else ALL
        return [each for each in family if each not in self.addresses]

    def is_translated(self, host: str) -> bool:
        return self.translation is not None and ":" in host

    def let_in(self) -> dict[Key, set[str | Permit]]:
        return {
            (binding.transport, binding.external): {
                remote.address for pinhole in pinholes.values() for remote in pinhole.remotes
            }.union(*(pinhole.permits for pinhole in pinholes.values()))
            for binding, pinholes in self.bindings.values()
        }

    def is_free(
        self, transport: Transport, external: Endpoint, owner: Endpoint, now: float
    ) -> bool:
        low, high = BEHAVIOR.fence
        if self.is_translated(owner.address):
            is_ours = external == (self.external_address(owner.address), owner.port)
        else:
            is_ours = (
                external.address in self.addresses
                and (":" in external.address) == (":" in owner.address)
                and not low <= external.port <= high
                and external.port not in BEHAVIOR.denied_ports
            )
        return (
            is_ours
            and 1024 <= external.port <= 65535
            and all(
                (binding.transport, binding.external) != (transport, external)
                for binding, _ in self.bindings.values()
            )
            and all(
                until <= now
                or (binding.transport, binding.external) != (transport, external)
                or binding.internal == owner
                for until, binding in self.quarantine
            )
        )

    def check_refusal(
        self,
        refusal: BindRefused,
        transport: Transport,
        fresh: list[Endpoint],
        now: float,
        *,
        is_run: bool = False,
    ) -> None:
        """Checks that binding these endpoints had to be refused, and so."""
        host = fresh[0].address
        if isinstance(refusal, RateExceeded):
            recent = self.recent(host, now)
            assert recent + len(fresh) > BEHAVIOR.max_new_per_second
            return
        if isinstance(refusal, QuotaExceeded):
            assert (
                self.count(host) + len(fresh) > BEHAVIOR.max_mappings_per_host
                or len(self.bindings) + len(fresh) > BEHAVIOR.max_mappings
            )
            return
        address = self.external_address(host)
        if address is None:
            assert isinstance(refusal, NoExternalAddress)
            return
        assert isinstance(refusal, NoFreePort)
        if self.is_translated(host):
            own = [Endpoint(address, internal.port) for internal in fresh]
            free = map(self.is_free, [transport] * 2, own, fresh, [now] * 2)
            assert not all(free)
            return
        runs = [sorted(fresh)] if is_run else [[endpoint] for endpoint in fresh]
        anyone = stranger(address, 0)
        fits = [
            [
                port
                for port in range(20000 + run[0].port % 2, 20009 - len(run), 2)
                if all(
                    self.is_free(transport, Endpoint(address, port + i), anyone, now)
                    for i in range(len(run))
                )
            ]
            for run in runs
        ]
        # Two single ports of one parity may have been after the same last one.
        assert not all(fits) or (len(fits) == 2 and len(set(fits[0] + fits[1])) == 1)

    def close(self, binding: Binding, owner: Owner, now: float) -> None:
        key = (binding.transport, binding.internal)
        _, pinholes = self.bindings[key]
        del pinholes[owner]
        if not pinholes:
            del self.bindings[key]
            self.pairs = [pair for pair in self.pairs if binding not in pair]
            self.quarantine.append((now + BEHAVIOR.quarantine_timeout, binding))


class Kernel(dict[Key, tuple[Endpoint, Kind, set[str | Permit]]]):
    """What a kernel knows that is told the changes only: by external endpoint, internal endpoint,
    kind, and whom it lets in.
    """

    def apply(self, change: Change) -> None:
        """Does what a change says, which must be possible then: nothing twice, nothing unknown."""
        binding = change.binding
        key = (binding.transport, binding.external)
        if isinstance(change, Opened):
            assert key not in self
            self[key] = (binding.internal, binding.kind, set())
        elif isinstance(change, Closed):
            assert self.pop(key) == (binding.internal, binding.kind, set())
        elif isinstance(change, Turned):
            assert self[key] == (change.before.internal, change.before.kind, set())
            self[key] = (binding.internal, binding.kind, set())
        elif isinstance(change, Admitted | Permitted):
            name = change.address if isinstance(change, Admitted) else change.permit
            assert self[key][1] is binding.kind and name not in self[key][2]
            self[key][2].add(name)
        elif isinstance(change, Excluded | Forbidden):
            assert self[key][1] is binding.kind
            name = change.address if isinstance(change, Excluded) else change.permit
            self[key][2].remove(name)


def memories_of_hosts(root: object) -> list[object]:
    """Returns what an object holds, however deep, that tells of a host 10.0.0.x or fd00::x."""
    return [
        one
        for one in _reachable(root)
        if isinstance(one, Binding | Pinhole | Endpoint | Owner | Entry | Claim)
        or (isinstance(one, str) and one.startswith(("10.0.0.", "fd00::")))
    ]


def _reachable(root: object) -> Iterator[object]:
    seen, left = set(), [root]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, _SHARED):
            seen.add(id(one))
            left += gc.get_referents(one)
            yield one
