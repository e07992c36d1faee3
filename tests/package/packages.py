"""Packages as the tests need them: built from this checkout, and the same as a later version."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"[a-z0-9][a-z0-9.+-]+")


def build(folder: Path) -> Path:
    """Builds the package as `./dev deb` does and returns where it is; raises RuntimeError."""
    return Path(_run(str(ROOT / "dev"), "deb", str(folder)).strip())


def as_later_version(package: Path, folder: Path) -> Path:
    """Packs what a package has once more, as the version after it, and returns where that is."""
    unpacked = folder / "unpacked"
    _run("dpkg-deb", "--raw-extract", str(package), str(unpacked))
    control = unpacked / "DEBIAN/control"
    control.write_text(
        re.sub(r"^Version: .*$", r"\g<0>+later", control.read_text(), flags=re.MULTILINE)
    )
    later = folder / "later.deb"
    _run("dpkg-deb", "--build", "-Znone", str(unpacked), str(later))
    return later


def dependencies(package: Path) -> list[str]:
    """Returns the names of the packages that a package depends on, of alternatives the first."""
    listed = _run("dpkg-deb", "--field", str(package), "Depends")
    names = (NAME.match(each.strip()) for each in listed.split(","))
    return [name[0] for name in names if name]


def _run(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
