"""The table against a model of it (`model.py`), and against a kernel that is told the changes only.

Runs a fixed series of 10,000 steps; with HYPOTHESIS_PROFILE=explore ten times as many random ones.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nat_table.binding import Binding, Kind, Owner, Permit, Pinhole
from nat_table.changes import Opened
from nat_table.endpoint import Endpoint, Transport
from nat_table.lease import is_lease
from nat_table.prefix import PrefixTranslation
from nat_table.refusal import BindRefused
from nat_table.snapshot import restore, snapshot
from nat_table.table import NatTable
from tests.nat_table.draws import (
    endpoints,
    kinds,
    lifetimes,
    owners,
    permits,
    remotes,
    stranger,
    transports,
)
from tests.nat_table.model import (
    ADDRESSES,
    BEHAVIOR,
    TRANSLATIONS,
    Kernel,
    Key,
    Model,
    memories_of_hosts,
)


class TableMachine(RuleBasedStateMachine):
    steps = 0

    @initialize(seed=st.integers(0, 2**32), translation=st.sampled_from(TRANSLATIONS))
    def start(self, seed: int, translation: PrefixTranslation | None) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.table = NatTable(ADDRESSES, BEHAVIOR, self.random, translation)
        self.model = Model(ADDRESSES, translation)
        self.committed = self.model.copy()
        self.kernel = Kernel()
        self.seen: set[Key] = set()

    @rule(
        transport=transports,
        internal=endpoints,
        kind=kinds,
        owner=owners,
        lifetime=lifetimes,
        remotes=remotes,
        permits=permits,
    )
    def bind(
        self,
        transport: Transport,
        internal: Endpoint,
        kind: Kind,
        owner: Owner,
        lifetime: float,
        remotes: tuple[Endpoint, ...],
        permits: tuple[Permit, ...],
    ) -> None:
        expires_at = self.now + lifetime
        try:
            binding = self.table.bind(
                transport,
                internal,
                kind,
                owner,
                now=self.now,
                expires_at=expires_at,
                remotes=remotes,
                permits=permits,
            )
        except BindRefused as refusal:
            self.model.check_refusal(refusal, transport, [internal], self.now)
        else:
            asked = Pinhole(owner, expires_at, remotes, permits)
            self.check_bound(binding, kind, transport, internal, asked)

    @rule(
        rtp=endpoints,
        gap=st.sampled_from([0, 1, 1, 1, 1, 2, -1]),
        owner=owners,
        lifetime=lifetimes,
    )
    def bind_pair(self, rtp: Endpoint, gap: int, owner: Owner, lifetime: float) -> None:
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
            )
        except BindRefused as refusal:
            self.model.check_refusal(refusal, Transport.UDP, fresh, self.now, is_run=is_new)
            return
        for binding, internal, kind in zip(pair, (rtp, rtcp), (Kind.RTP, Kind.RTCP), strict=True):
            pinhole = Pinhole(owner, expires_at)
            self.check_bound(binding, kind, Transport.UDP, internal, pinhole, is_run=is_new)
        if is_new:
            self.model.pairs.append((pair.rtp, pair.rtcp))

    def check_bound(
        self,
        binding: Binding,
        kind: Kind,
        transport: Transport,
        internal: Endpoint,
        asked: Pinhole,
        *,
        is_run: bool = False,
    ) -> None:
        key = (transport, internal)
        if key in self.model.bindings:
            standing, pinholes = self.model.bindings[key]
            if kind is Kind.SIP and standing.kind is Kind.ANY:
                standing = replace(standing, kind=kind)
                self.model.bindings[key] = (standing, pinholes)
            assert binding == standing
            before = pinholes.get(asked.owner)
            if before is not None:
                deadline = max(before.expires_at, asked.expires_at)
                asked = Pinhole(
                    asked.owner,
                    deadline,
                    asked.remotes or before.remotes,
                    asked.permits or before.permits,
                )
            pinholes[asked.owner] = asked
            return
        external = binding.external
        assert (binding.transport, binding.internal, binding.kind) == (*key, kind)
        assert binding.created_at == self.now
        assert external.address == self.model.external_address(internal.address)
        assert external.port % 2 == internal.port % 2
        assert self.model.is_free(transport, external, internal, self.now)
        had = {b.external for _, b in self.model.quarantine if (b.transport, b.internal) == key}
        own = Endpoint(external.address, internal.port)
        if self.model.is_free(transport, own, internal, self.now) and not (is_run or had):
            assert external == own
        follows = is_run and kind is Kind.RTCP  # wherever the first one had to be
        assert follows or external in had | {own} or 20000 <= external.port <= 20007
        self.model.bindings[key] = (binding, {asked.owner: asked})
        assert self.model.count(internal.address) <= BEHAVIOR.max_mappings_per_host
        assert len(self.model.bindings) <= BEHAVIOR.max_mappings
        self.model.opened.append((self.now, internal.address))
        assert self.model.recent(internal.address, self.now) <= BEHAVIOR.max_new_per_second
        self.seen.add((transport, external))

    @precondition(lambda self: self.model.bindings)
    @rule(
        data=st.data(),
        owner=owners,
        lifetime=lifetimes,
        remotes=st.none() | remotes,
        permits=st.none() | permits,
    )
    def refresh(
        self,
        data: st.DataObject,
        owner: Owner,
        lifetime: float,
        remotes: tuple[Endpoint, ...] | None,
        permits: tuple[Permit, ...] | None,
    ) -> None:
        binding, pinholes = data.draw(st.sampled_from(list(self.model.bindings.values())))
        expires_at = self.now + lifetime
        self.table.refresh(binding, owner, expires_at, remotes, permits)
        if remotes is None:
            remotes = pinholes[owner].remotes if owner in pinholes else ()
        if permits is None:
            permits = pinholes[owner].permits if owner in pinholes else ()
        pinholes[owner] = Pinhole(owner, expires_at, remotes, permits)

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

    @rule(
        jump=st.sampled_from([0.0, 0.5, 0.5, 1.0, 29.0, 60.0, 119.0, 120.0, 500.0]),
        limit=st.sampled_from([None, 1, 3]),
    )
    def expire(self, jump: float, limit: int | None) -> None:
        self.now += jump
        self.table.expire(self.now, limit)
        while (due := self.table.next_deadline()) is not None and due <= self.now:
            assert limit is not None
            self.table.expire(self.now, limit)
        for binding, pinholes in list(self.model.bindings.values()):
            for pinhole in list(pinholes.values()):
                if pinhole.expires_at <= self.now:
                    self.model.close(binding, pinhole.owner, self.now)
        self.model.quarantine = [each for each in self.model.quarantine if each[0] > self.now]

    @rule()
    def commit(self) -> None:
        """Takes the changes; a kernel that knows nothing else has the same bindings then."""
        for change in self.table.take_changes():
            self.kernel.apply(change)
        assert {key: place for key, (*place, _) in self.kernel.items()} == {
            (binding.transport, binding.external): [binding.internal, binding.kind]
            for binding, _ in self.model.bindings.values()
        }
        assert {key: names for key, (*_, names) in self.kernel.items()} == self.model.let_in()
        self.committed = self.model.copy()
        assert self.table.take_changes() == []

    @rule()
    def refuse(self) -> None:
        """Takes the changes, which the kernel refuses."""
        self.table.revert(self.table.take_changes())
        assert self.table.take_changes() == []
        self.model = self.committed.copy()

    @rule(is_swapped=st.booleans())
    def restart(self, is_swapped: bool) -> None:
        """Begins anew with what was saved, on another list of addresses: quarantine is lost."""
        self.commit()
        rows, addresses = snapshot(self.table), self.model.addresses
        self.model.addresses = addresses[::-1] if is_swapped else addresses
        self.table = NatTable(self.model.addresses, BEHAVIOR, self.random, self.model.translation)
        restore(self.table, rows, self.now)
        assert snapshot(self.table) == rows
        self.model.quarantine, self.model.opened = [], []
        self.commit()

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        self.commit()
        model = self.model
        old = data.draw(st.sampled_from(model.addresses))
        new = data.draw(st.sampled_from(model.unused_addresses(like=old)))
        moved = self.table.move(old, new, self.now)
        assert moved == {
            binding: replace(
                binding, external=Endpoint(new, binding.external.port), created_at=self.now
            )
            for binding, _ in model.bindings.values()
            if binding.external.address == old
        }
        model.addresses = [new if address == old else address for address in model.addresses]
        model.bindings = {
            key: (moved.get(binding, binding), pinholes)
            for key, (binding, pinholes) in model.bindings.items()
        }
        model.pairs = [(moved.get(rtp, rtp), moved.get(rtcp, rtcp)) for rtp, rtcp in model.pairs]
        model.quarantine = [each for each in model.quarantine if each[1].external.address != old]
        self.commit()

    @invariant()
    def table_and_model_agree(self) -> None:
        type(self).steps += 1
        table, model = self.table, self.model
        assert len(table) == len(model.bindings)
        listed = {(binding.transport, binding.internal): binding for binding in table.bindings()}
        assert listed == {key: binding for key, (binding, _) in model.bindings.items()}
        for (transport, internal), (binding, pinholes) in model.bindings.items():
            assert table.look_up_internal(transport, internal) == binding
            assert table.look_up_external(transport, binding.external) == binding
            assert len(table.pinholes(binding)) == len(pinholes)
            assert set(table.pinholes(binding)) == set(pinholes.values())
            assert table.is_leased(binding) is any(map(is_lease, pinholes.values()))
            assert table.count(internal.address) == model.count(internal.address)
            assert table.external_address(internal.address) == binding.external.address
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
            internal = stranger(external.address, number)
            pinhole = Pinhole(Owner("flow"), self.now)
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
        self.expire(1000.0, None)
        assert len(self.table) == 0
        assert self.table.next_deadline() is None
        self.expire(BEHAVIOR.quarantine_timeout, None)
        self.commit()
        assert self.kernel == {}
        assert memories_of_hosts(self.table) == []
        self.a_stranger_may_have_just_what_is_free()


STEPS_PER_EXAMPLE, EXAMPLES = 50, 250


@pytest.mark.timeout(600)
def test_the_table_does_what_the_model_does() -> None:
    default = settings.get_profile(settings.get_current_profile_name())
    TableMachine.steps = 0
    run_state_machine_as_test(
        TableMachine,
        settings=settings(
            max_examples=EXAMPLES if default.derandomize else 10 * EXAMPLES,
            stateful_step_count=STEPS_PER_EXAMPLE,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert TableMachine.steps >= 10_000
