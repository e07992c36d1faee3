"""The seam to the kernel, shown on the backend that keeps its mappings in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Closed, Opened
from nat_table.endpoint import Endpoint, Transport
from rules.backend import Backend, CommitFailed, KernelBackend
from rules.memory import MemoryBackend
from rules.settings import Settings

SETTINGS = Settings(("lan0",), "wan0", ("203.0.113.1",))
PINHOLE = Pinhole(Owner("call"), 60.0)


def bind(host: str, external_port: int) -> Binding:
    return Binding(
        Transport.UDP,
        Endpoint(host, 4000),
        Endpoint("203.0.113.1", external_port),
        Kind.RTP,
        0.0,
    )


FIRST, SECOND = bind("10.0.0.20", 4000), bind("10.0.0.21", 20000)


def test_both_backends_fit_the_seam() -> None:
    seams: tuple[type[Backend], ...] = (KernelBackend, MemoryBackend)
    assert len(seams) == 2


def test_listing_follows_the_commits() -> None:
    backend = MemoryBackend(SETTINGS)
    backend.install()
    backend.commit([Opened(FIRST, PINHOLE), Opened(SECOND, PINHOLE)])
    assert backend.listing() == [FIRST, SECOND]
    backend.commit([Closed(FIRST, (PINHOLE,)), Closed(FIRST, (PINHOLE,))])
    assert backend.listing() == [SECOND]
    backend.release_capture()
    assert not backend.is_capturing and backend.listing() == [SECOND]
    backend.uninstall()
    assert backend.listing() == []


def test_refused_commit_changes_nothing() -> None:
    backend = MemoryBackend(SETTINGS)
    backend.commit([Opened(FIRST, PINHOLE)])
    with pytest.raises(CommitFailed, match="EEXIST"):
        backend.commit([Opened(SECOND, PINHOLE), Opened(bind("10.0.0.22", 4000), PINHOLE)])
    backend.is_refusing = True
    with pytest.raises(CommitFailed):
        backend.commit([Closed(FIRST, (PINHOLE,))])
    assert backend.listing() == [FIRST]


def test_reconciling_leaves_what_is_wanted_and_nothing_else() -> None:
    backend = MemoryBackend(SETTINGS)
    backend.commit([Opened(FIRST, PINHOLE)])
    for _ in backend.reconcile([(SECOND, ["198.51.100.7"])]):
        pass
    assert backend.listing() == [SECOND]
    backend.is_refusing = True
    with pytest.raises(CommitFailed):
        list(backend.reconcile([]))


def test_A93_other_settings_keep_what_stands() -> None:
    backend = MemoryBackend(SETTINGS)
    backend.commit([Opened(FIRST, PINHOLE)])
    backend.reconfigure(replace(SETTINGS, external_addresses=("203.0.113.2",)))
    assert backend.listing() == [FIRST]
    moved = replace(FIRST, external=Endpoint("203.0.113.2", 4000))
    backend.commit([Closed(FIRST, (PINHOLE,)), Opened(moved, PINHOLE)])
    assert backend.listing() == [moved]
