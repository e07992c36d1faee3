"""The lab in containers, from nothing to nothing: built, every call of it made, and taken down.

One test, because a lab is one thing: the calls follow one another, and each that fails is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.docker.calls import CALLS
from tests.docker.engine import DockerFailed, docker
from tests.docker.lab import Lab
from tests.lab.agents import wait_until

PROJECT = "sipnat-lab-test"
HEALTH_TIMEOUT = 30.0

pytestmark = pytest.mark.docker


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Yields a lab that is up, beside one that somebody may have up."""
    lab = Lab(PROJECT, lan="10.78.0", wan="198.18.78")
    lab.down()  # what a killed test has left
    try:
        lab.build()
        lab.up()
        yield lab
    finally:
        lab.down()
        assert left_behind() == [], "something is left of the lab"


@pytest.mark.timeout(900)  # an engine that has built nothing yet fetches packages
def test_every_call_carries_audio_and_outlives_the_daemon(lab: Lab) -> None:
    failures = []
    for name, make in CALLS.items():
        try:
            make(lab)
        except (AssertionError, DockerFailed) as failure:
            failures.append(f"{name}: {failure}")
    assert not failures, "\n".join(failures)
    check_confinement(lab)


def check_confinement(lab: Lab) -> None:
    """Raises AssertionError if the router can do more than it must, or is not well."""
    router = json.loads(docker("inspect", lab.container("router")))[0]
    host = router["HostConfig"]
    assert host["ReadonlyRootfs"] and not host["Privileged"]
    assert [sorted(host[key]) for key in ("CapDrop", "CapAdd")] == [
        ["ALL"],
        ["NET_ADMIN", "NET_RAW"],
    ]
    for compiler in ("gcc", "cc", "pip", "pip3"):
        assert not lab.in_router("sh", "-c", f"command -v {compiler} || true"), compiler
    assert wait_until(lambda: health(lab) == "healthy", HEALTH_TIMEOUT), lab.in_router(
        "sh", "-c", "sipnat doctor || true"
    )


def health(lab: Lab) -> str:
    """Returns what Docker thinks of the router."""
    return docker("inspect", "-f", "{{.State.Health.Status}}", lab.container("router")).strip()


def left_behind() -> list[str]:
    """Returns the ids of all that still bears the project's name."""
    ours = f"--filter=label=com.docker.compose.project={PROJECT}"
    listings = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
    return [line for words in listings for line in docker(*words, "--quiet", ours).split()]
