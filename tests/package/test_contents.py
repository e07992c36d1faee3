"""What is in the package, without installing it: the files, the environment, what it depends on.

An environment that was made in one place and runs in another must not know the first; one that an
administrator gets must be the locked one and nothing beside it.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "alg/deploy"
ENVIRONMENT = "usr/lib/sipnat"

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600), pytest.mark.xdist_group("machine")]


class Entry(NamedTuple):
    """A file of the package as its archive has it, such as "-rw-r--r--" and "root/root"."""

    mode: str
    owner: str


@pytest.fixture(scope="module")
def entries(package: Path) -> dict[str, Entry]:
    """Returns what the archive lists, by path."""
    rows = (line.split(maxsplit=5) for line in run("dpkg-deb", "-c", package).splitlines())
    return {row[5].split(" -> ")[0][2:]: Entry(row[0], row[1]) for row in rows}


@pytest.fixture(scope="module")
def unpacked(package: Path, folder: Path) -> Path:
    """Returns the folder with the package's files, its control files under DEBIAN."""
    run("dpkg-deb", "-R", package, folder / "contents")
    return folder / "contents"


@pytest.fixture(scope="module")
def modules(unpacked: Path) -> Path:
    """Returns the folder of the environment's modules."""
    [modules] = (unpacked / ENVIRONMENT / "lib").glob("python3.*/site-packages")
    return modules


def run(*arguments: str | Path) -> str:
    """Runs a command and returns what it printed; it must succeed."""
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_version_and_dependencies_are_those_of_what_is_inside(package: Path, modules: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    architecture = run("dpkg", "--print-architecture").strip()
    assert package.name == f"sipnat_{version}_{architecture}.deb"
    assert run("dpkg-deb", "-f", package, "Version").strip() == version
    assert (modules / f"sipnat-{version}.dist-info").is_dir()
    depends = re.split(r"[,|] *", run("dpkg-deb", "-f", package, "Depends").strip())
    names = {each.split()[0] for each in depends}
    assert {"nftables", "iptables", "libnetfilter-queue1", modules.parent.name} <= names


def test_what_an_administrator_looks_for_stands_where_it_belongs(
    entries: dict[str, Entry], unpacked: Path
) -> None:
    assert (unpacked / "DEBIAN/conffiles").read_text().split() == ["/etc/sipnat/sipnat.toml"]
    expected = {
        "etc/sipnat/sipnat.toml",
        "usr/bin/sipnat",
        "lib/systemd/system/sipnat.service",
        "lib/systemd/system/sipnat@.service",
        "usr/lib/sysctl.d/50-sipnat.conf",
        "usr/lib/sysusers.d/sipnat.conf",
        "usr/share/bash-completion/completions/sipnat",
        "usr/share/zsh/vendor-completions/_sipnat",
        "usr/share/fish/vendor_completions.d/sipnat.fish",
        "usr/share/sipnat/sipnat-alerts.yml",
        "usr/share/sipnat/sipnat-dashboard.json",
        *(f"usr/share/man/man1/{page.name}.gz" for page in (DEPLOY / "man").iterdir()),
        *(
            f"usr/share/sipnat/{snippet.relative_to(DEPLOY)}"
            for snippet in (DEPLOY / "firewall").rglob("*.*")
        ),
    }
    assert expected <= set(entries)
    strays = {
        path
        for path in set(entries) - expected
        if entries[path].mode[0] != "d"
        and not path.startswith((f"{ENVIRONMENT}/", "usr/share/doc/sipnat/", "usr/share/lintian/"))
    }
    assert not strays


def test_everything_is_root_s_and_nobody_else_may_write(entries: dict[str, Entry]) -> None:
    assert {entry.owner for entry in entries.values()} == {"root/root"}
    modes = {path: entry.mode for path, entry in entries.items() if entry.mode[0] != "l"}
    assert not [path for path, mode in modes.items() if "w" in mode[3:] or "s" in mode]
    programs = [path for path, mode in modes.items() if mode[0] == "-" and "x" in mode]
    assert programs == ["usr/bin/sipnat"]


def test_environment_has_the_locked_libraries_and_nothing_to_build_or_test_with(
    modules: Path,
) -> None:
    locked = set((ROOT / "requirements.lock").read_text().lower().replace("-", "_").split())
    installed = {
        path.name.removesuffix(".dist-info").lower().replace("-", "==", 1)
        for path in modules.glob("*.dist-info")
    }
    assert {each for each in installed if not each.startswith("sipnat==")} <= locked
    names = {each.split("==")[0] for each in installed}
    assert {"aiohttp", "async_upnp_client", "netfilterqueue", "pyroute2"} <= names
    assert not names & {"pip", "setuptools", "cython", "wheel", "pytest"}
    assert not list(modules.rglob("tests"))
    assert not list(modules.rglob("*.[ch]"))
    assert sorted(path.name for path in (modules / "../../../bin").iterdir()) == ["python3"]


def test_environment_knows_no_place_but_its_own(unpacked: Path) -> None:
    python = unpacked / ENVIRONMENT / "bin/python3"
    [module_folder] = (unpacked / ENVIRONMENT / "lib").iterdir()
    assert str(python.readlink()) == f"../../../bin/{module_folder.name}"
    places = (b"/debian/sipnat", b"/build/tools", str(ROOT).encode())
    for path in unpacked.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not [place for place in places if place in content], path


def test_byte_code_of_every_module_is_that_of_its_source(modules: Path) -> None:
    for source in modules.rglob("*.py"):
        [compiled] = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-3*.pyc")
        header = compiled.read_bytes()[:16]
        stat = source.stat()
        recorded = [int.from_bytes(header[at : at + 4], "little") for at in (4, 8, 12)]
        assert recorded == [0, int(stat.st_mtime), stat.st_size], source


def test_packet_path_is_compiled_and_its_source_is_there_too(unpacked: Path, modules: Path) -> None:
    libraries = {path.name.split(".")[0] for path in (modules / "nat_table").glob("*.so")}
    assert "table" in libraries
    assert libraries <= {path.stem for path in (modules / "nat_table").glob("*.py")}
    program = "import sys; sys.path.insert(0, sys.argv[1]); import alg.version as v; "
    [python] = {path.name for path in (unpacked / ENVIRONMENT / "lib").iterdir()}
    how = run(python, "-I", "-c", program + "print(v.is_compiled())", modules)
    assert how == "True\n"


def test_lintian_finds_nothing(package: Path) -> None:
    run("lintian", "--allow-root", "--fail-on", "error,warning", package)
