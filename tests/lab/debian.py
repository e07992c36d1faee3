"""A fresh root file system of the distribution that this machine runs, for machines of the lab.

It has systemd and what routers have; it comes from the distribution's archive (about a minute), and
its release is this machine's, whose Python a package that is built here is for.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROUTER_PACKAGES = ("systemd", "systemd-sysv", "dbus", "iproute2", "nftables", "iptables", "procps")
HOST_NAME = "router"


def make_root(folder: Path, packages: Iterable[str] = ()) -> None:
    """Makes a root with `packages` beside those of a router; raises RuntimeError."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    included = ",".join((*ROUTER_PACKAGES, *packages))
    apt = ('--aptopt=Acquire::Retries "3"', "--dpkgopt=force-unsafe-io")
    options = ("--variant=minbase", *apt, f"--include={included}")
    done = subprocess.run(
        ["mmdebstrap", "--quiet", *options, release, str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"mmdebstrap: {done.stderr.strip()}")
    Path(folder, "etc/hostname").write_text(f"{HOST_NAME}\n")
    Path(folder, "etc/hosts").write_text(f"127.0.0.1 localhost {HOST_NAME}\n")
