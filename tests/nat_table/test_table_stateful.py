"""The table against a model of it that is too simple to be wrong.

The model keeps plain lists and looks through all of them, every time. Runs a fixed series of
examples; with SIPNAT_PROPERTY_STEPS=100000 in the environment that many random steps instead.
"""

import copy
import os
import random
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Change, Closed, Opened
from nat_table.endpoint import Endpoint, Transport
from nat_table.snapshot import restore, snapshot
from nat_table.table import BindRefused, NatTable, NoFreePort, QuotaExceeded

ADDRESSES = ["203.0.113.1", "203.0.113.2"]
BEHAVIOR = Behavior(
    pool=(20000, 20007),
    denied_ports=frozenset({5061, 20002}),
    max_mappings=14,
    max_mappings_per_host=7,
)
STRANGER = "10.0.0.99"
Key = tuple[Transport, Endpoint]

transports = st.sampled_from([Transport.UDP, Transport.UDP, Transport.UDP, Transport.TCP])
hosts = st.sampled_from([f"10.0.0.{host}" for host in range(20, 25)])
ports = st.sampled_from([80, 4000, 4001, 4002, 4003, 5061, 20000, 20003, 60999, 61000])
endpoints = st.builds(Endpoint, hosts, ports)
owners = st.sampled_from([Owner("call", "a"), Owner("call", "b"), Owner("flow")])
remotes = st.sampled_from([None, Endpoint("198.51.100.1", 5060), Endpoint("198.51.100.2", 9)])
lifetimes = st.sampled_from([1.0, 30.0, 60.0, 300.0])


@dataclass
class Model:
    """Bindings with their pinholes, pairs made together, and (end, binding) of every quarantine."""

    bindings: dict[Key, tuple[Binding, dict[Owner, Pinhole]]] = field(default_factory=dict)
    pairs: list[tuple[Binding, Binding]] = field(default_factory=list)
    quarantine: list[tuple[float, Binding]] = field(default_factory=list)

    def count(self, host: str) -> int:
        return sum(endpoint.address == host for _, endpoint in self.bindings)

    def is_free(
        self, transport: Transport, external: Endpoint, owner: Endpoint, now: float
    ) -> bool:
        low, high = BEHAVIOR.fence
        return (
            1024 <= external.port <= 65535
            and not low <= external.port <= high
            and external.port not in BEHAVIOR.denied_ports
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

    def close(self, binding: Binding, owner: Owner, now: float) -> None:
        key = (binding.transport, binding.internal)
        _, pinholes = self.bindings[key]
        del pinholes[owner]
        if not pinholes:
            del self.bindings[key]
            self.pairs = [pair for pair in self.pairs if binding not in pair]
            self.quarantine.append((now + BEHAVIOR.quarantine_timeout, binding))


class TableMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.now = 0.0
        self.table = NatTable(ADDRESSES, BEHAVIOR, random.Random(seed))
        self.model = Model()
        self.committed = copy.deepcopy(self.model)
        self.kernel: dict[Endpoint | Key, Endpoint] = {}
        self.seen: set[tuple[Transport, Endpoint]] = set()

    @rule(
        transport=transports,
        internal=endpoints,
        owner=owners,
        lifetime=lifetimes,
        remote=remotes,
    )
    def bind(
        self,
        transport: Transport,
        internal: Endpoint,
        owner: Owner,
        lifetime: float,
        remote: Endpoint | None,
    ) -> None:
        expires_at = self.now + lifetime
        try:
            binding = self.table.bind(
                transport,
                internal,
                Kind.SIP,
                owner,
                now=self.now,
                expires_at=expires_at,
                remote=remote,
            )
        except BindRefused as refusal:
            self.check_refusal(refusal, transport, [internal])
        else:
            self.check_bound(binding, transport, internal, Pinhole(owner, expires_at, remote))

    @rule(
        rtp=endpoints,
        gap=st.sampled_from([0, 1, 1, 1, 1, 2, -1]),
        owner=owners,
        lifetime=lifetimes,
        remote=remotes,
    )
    def bind_pair(
        self, rtp: Endpoint, gap: int, owner: Owner, lifetime: float, remote: Endpoint | None
    ) -> None:
        rtcp = Endpoint(rtp.address, rtp.port + gap)
        fresh = [
            endpoint
            for endpoint in {rtp, rtcp}
            if (Transport.UDP, endpoint) not in self.model.bindings
        ]
        is_new = gap == 1 and len(fresh) == 2
        expires_at = self.now + lifetime
        try:
            pair = self.table.bind_pair(
                rtp,
                rtcp,
                owner,
                now=self.now,
                expires_at=expires_at,
                remote=remote,
                rtcp_remote=remote,
            )
        except BindRefused as refusal:
            self.check_refusal(refusal, Transport.UDP, fresh, is_run=is_new)
            return
        for binding, internal in zip(pair, (rtp, rtcp), strict=True):
            pinhole = Pinhole(owner, expires_at, remote)
            self.check_bound(binding, Transport.UDP, internal, pinhole, is_run=is_new)
        if is_new:
            self.model.pairs.append((pair.rtp, pair.rtcp))

    def check_bound(
        self,
        binding: Binding,
        transport: Transport,
        internal: Endpoint,
        asked: Pinhole,
        *,
        is_run: bool = False,
    ) -> None:
        key = (transport, internal)
        if key in self.model.bindings:
            standing, pinholes = self.model.bindings[key]
            assert binding == standing
            before = pinholes.get(asked.owner)
            if before is not None:
                deadline = max(before.expires_at, asked.expires_at)
                asked = Pinhole(asked.owner, deadline, asked.remote or before.remote)
            pinholes[asked.owner] = asked
            return
        external = binding.external
        assert (binding.transport, binding.internal) == key
        assert binding.created_at == self.now
        assert external.address == self.table.external_address(internal.address)
        assert external.port % 2 == internal.port % 2
        assert self.model.is_free(transport, external, internal, self.now)
        had = {b.external for _, b in self.model.quarantine if (b.transport, b.internal) == key}
        own = Endpoint(external.address, internal.port)
        if self.model.is_free(transport, own, internal, self.now) and not (is_run or had):
            assert external == own
        assert external in had | {own} or 20000 <= external.port <= 20007
        self.model.bindings[key] = (binding, {asked.owner: asked})
        assert self.model.count(internal.address) <= BEHAVIOR.max_mappings_per_host
        assert len(self.model.bindings) <= BEHAVIOR.max_mappings
        self.seen.add((transport, external))

    def check_refusal(
        self,
        refusal: BindRefused,
        transport: Transport,
        fresh: list[Endpoint],
        *,
        is_run: bool = False,
    ) -> None:
        host = fresh[0].address
        if isinstance(refusal, QuotaExceeded):
            assert (
                self.model.count(host) + len(fresh) > BEHAVIOR.max_mappings_per_host
                or len(self.model.bindings) + len(fresh) > BEHAVIOR.max_mappings
            )
            return
        assert isinstance(refusal, NoFreePort)
        address = self.table.external_address(host)
        runs = [sorted(fresh)] if is_run else [[endpoint] for endpoint in fresh]
        anyone = Endpoint(STRANGER, 0)
        fits = [
            [
                port
                for port in range(20000 + run[0].port % 2, 20009 - len(run), 2)
                if all(
                    self.model.is_free(transport, Endpoint(address, port + i), anyone, self.now)
                    for i in range(len(run))
                )
            ]
            for run in runs
        ]
        # Two single ports of one parity may have been after the same last one.
        assert not all(fits) or (len(fits) == 2 and len(set(fits[0] + fits[1])) == 1)

    @precondition(lambda self: self.model.bindings)
    @rule(data=st.data(), owner=owners, lifetime=lifetimes, remote=st.one_of(st.just(...), remotes))
    def refresh(self, data: st.DataObject, owner: Owner, lifetime: float, remote: object) -> None:
        binding, pinholes = data.draw(st.sampled_from(list(self.model.bindings.values())))
        expires_at = self.now + lifetime
        self.table.refresh(binding, owner, expires_at, remote)  # type: ignore[arg-type]
        if remote is ...:
            remote = pinholes[owner].remote if owner in pinholes else None
        pinholes[owner] = Pinhole(owner, expires_at, remote)  # type: ignore[arg-type]

    @precondition(lambda self: self.model.bindings)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        binding, pinholes = data.draw(st.sampled_from(list(self.model.bindings.values())))
        owner = data.draw(st.sampled_from(list(pinholes)))
        self.table.close(binding, owner, self.now)
        self.model.close(binding, owner, self.now)

    @precondition(lambda self: self.model.quarantine)
    @rule(data=st.data(), owner=owners)
    def use_what_is_gone(self, data: st.DataObject, owner: Owner) -> None:
        _, gone = data.draw(st.sampled_from(self.model.quarantine))
        if not any(gone == binding for binding, _ in self.model.bindings.values()):
            standing = self.model.bindings.get((gone.transport, gone.internal))
            if standing is None or standing[0].external != gone.external:
                self.table.close(gone, owner, self.now)
                self.table.refresh(gone, owner, self.now + 60.0)
                assert self.table.pinholes(gone) == ()

    @rule(jump=st.sampled_from([0.0, 1.0, 29.0, 60.0, 119.0, 120.0, 500.0]))
    def expire(self, jump: float) -> None:
        self.now += jump
        self.table.expire(self.now)
        for binding, pinholes in list(self.model.bindings.values()):
            for pinhole in list(pinholes.values()):
                if pinhole.expires_at <= self.now:
                    self.model.close(binding, pinhole.owner, self.now)

    @rule()
    def commit(self) -> None:
        """Takes the changes; a kernel that knows nothing else has the same bindings then."""
        for change in self.table.take_changes():
            self.apply_to_kernel(change)
        assert self.kernel == {
            (binding.transport, binding.external): binding.internal
            for binding, _ in self.model.bindings.values()
        }
        self.committed = copy.deepcopy(self.model)
        assert self.table.take_changes() == []

    def apply_to_kernel(self, change: Change) -> None:
        key = (change.binding.transport, change.binding.external)
        if isinstance(change, Opened):
            assert key not in self.kernel
            self.kernel[key] = change.binding.internal
        elif isinstance(change, Closed):
            assert self.kernel.pop(key) == change.binding.internal

    @rule()
    def refuse(self) -> None:
        """Takes the changes, which the kernel refuses."""
        self.table.revert(self.table.take_changes())
        assert self.table.take_changes() == []
        self.model = copy.deepcopy(self.committed)

    @rule()
    def restart(self) -> None:
        copied = NatTable(ADDRESSES, BEHAVIOR, random.Random(0))
        restore(copied, snapshot(self.table), self.now)
        assert snapshot(copied) == snapshot(self.table)

    @invariant()
    def table_and_model_agree(self) -> None:
        table, model = self.table, self.model
        assert len(table) == len(model.bindings)
        listed = {(binding.transport, binding.internal): binding for binding in table.bindings()}
        assert listed == {key: binding for key, (binding, _) in model.bindings.items()}
        for (transport, internal), (binding, pinholes) in model.bindings.items():
            assert table.look_up_internal(transport, internal) == binding
            assert table.look_up_external(transport, binding.external) == binding
            assert len(table.pinholes(binding)) == len(pinholes)
            assert set(table.pinholes(binding)) == set(pinholes.values())
            assert table.count(internal.address) == model.count(internal.address)
        external = {(b.transport, b.external) for b, _ in model.bindings.values()}
        assert len(external) == len(model.bindings)
        for transport, endpoint in self.seen - external:
            assert table.look_up_external(transport, endpoint) is None

    @invariant()
    def the_next_deadline_is_the_earliest(self) -> None:
        assert self.table.next_deadline() == min(
            (
                pinhole.expires_at
                for _, pinholes in self.model.bindings.values()
                for pinhole in pinholes.values()
            ),
            default=None,
        )

    @invariant()
    def a_stranger_may_have_just_what_is_free(self) -> None:
        for number, (transport, external) in enumerate(self.seen):
            internal, pinhole = Endpoint(STRANGER, number), Pinhole(Owner("flow"), self.now)
            binding = Binding(transport, internal, external, Kind.SIP, self.now)
            is_free = self.model.is_free(transport, external, internal, self.now)
            try:
                self.table.adopt(binding, pinhole, self.now)
            except ValueError:
                assert not is_free
            else:
                assert is_free
                self.table.revert([Opened(binding, pinhole)])

    @invariant()
    def pairs_stay_adjacent(self) -> None:
        for rtp, rtcp in self.model.pairs:
            assert rtcp.external == (rtp.external.address, rtp.external.port + 1)

    def teardown(self) -> None:
        """When all has expired, and quarantine with it, nothing is left and all ports are free."""
        if not hasattr(self, "table"):
            return
        self.expire(1000.0)
        assert len(self.table) == 0
        assert self.table.next_deadline() is None
        self.expire(BEHAVIOR.quarantine_timeout)
        self.a_stranger_may_have_just_what_is_free()


STEPS = int(os.environ.get("SIPNAT_PROPERTY_STEPS", "0"))
STEPS_PER_EXAMPLE = 50

TestTable = TableMachine.TestCase
TestTable.settings = settings(
    max_examples=max(1, STEPS // STEPS_PER_EXAMPLE) if STEPS else 30,
    stateful_step_count=STEPS_PER_EXAMPLE,
    derandomize=not STEPS,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
