"""Machines as fixtures. What is dear is made once: the package, a fresh root, and a disk on which
the package is installed and set up; each test boots a machine of its own from them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.debian import make_root
from tests.lab.namespace import exit_on_signals
from tests.lab.network import Network
from tests.lab.site import Site
from tests.package.packages import as_later_version, build, dependencies
from tests.package.router import Router

Layers = tuple[Path, ...]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yields a folder for what is large; it is gone after the session."""
    exit_on_signals()
    folder = tmp_path_factory.mktemp("package")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def package(folder: Path) -> Path:
    """Returns the package, built from this checkout."""
    return build(folder)


@pytest.fixture(scope="session")
def later_package(package: Path, folder: Path) -> Path:
    """Returns the package as the next version."""
    return as_later_version(package, folder)


@pytest.fixture(scope="session")
def root(package: Path, folder: Path) -> Path:
    """Returns a fresh root that has what the package depends on, and not the package."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    root = folder / "root"
    make_root(root, dependencies(package))
    return root


@pytest.fixture(scope="session")
def installed(root: Path, package: Path, folder: Path) -> Layers:
    """Returns a root on which the package is installed, set up and enabled."""
    with Network() as network, Router(network, (root,), folder / "installed") as router:
        router.start()
        router.install(package)
        router.set_up()
        router.power_off()
        return router.as_layers


@pytest.fixture
def network() -> Iterator[Network]:
    """Yields a wired network; its router is a namespace in which no machine has booted yet."""
    with Network() as network:
        yield network


@pytest.fixture
def bare(network: Network, root: Path, tmp_path: Path) -> Iterator[Router]:
    """Yields a running machine without the package."""
    with Router(network, (root,), tmp_path / "disk") as router:
        router.start()
        yield router


@pytest.fixture
def router(network: Network, installed: Layers, tmp_path: Path) -> Iterator[Router]:
    """Yields a machine that has booted with the package installed, set up and enabled."""
    with Router(network, installed, tmp_path / "disk") as router:
        router.start()
        yield router


@pytest.fixture
def site(network: Network) -> Iterator[Site]:
    """Yields the phones and the server on either side of the router."""
    with Site(network) as site:
        yield site
