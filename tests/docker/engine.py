"""Docker, as far as the lab needs it: its command, its compose (either of the two), and an image
to begin with.

`docker compose` is version 2, `docker-compose` is 1.29; the file is for both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker" / "compose.yaml"
SITE_CERTIFICATES = Path("/usr/local/share/ca-certificates")
BASE = "debian:bookworm-slim"
SUITE = "bookworm"
BUILD_TIMEOUT = 900.0
COMMAND_TIMEOUT = 180.0


class DockerFailed(Exception):
    """Docker could not do it; the message is what it printed, or one sentence."""


def why_not() -> str:
    """Returns why there can be no containers here, "" where there can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        docker("info", timeout=20.0)
        compose_command()
    except DockerFailed as failure:
        return str(failure).splitlines()[-1]
    return ""


def docker(*words: str, timeout: float = COMMAND_TIMEOUT) -> str:
    """Runs a docker command and returns what it prints; raises DockerFailed."""
    return run(["docker", *words], os.environ, timeout)


@cache
def compose_command() -> tuple[str, ...]:
    """Returns the compose that is installed; raises DockerFailed."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    raise DockerFailed("there is neither docker compose nor docker-compose")


def compose(*words: str, settings: Mapping[str, str], timeout: float = COMMAND_TIMEOUT) -> str:
    """Runs a command of compose on the lab's file, whose variables are `settings`."""
    certificates = "".join(path.read_text() for path in sorted(SITE_CERTIFICATES.glob("*.crt")))
    environment = {"SITE_CA": certificates, **os.environ, **settings}
    command = [*compose_command(), "-f", str(COMPOSE_FILE), *words]
    return run(command, environment, timeout)


def make_base() -> None:
    """Sees to the image that all others begin with: it is pulled, or else made from packages."""
    base = os.environ.get("BASE", BASE)
    try:
        docker("image", "inspect", base)
        return
    except DockerFailed:
        pass
    try:
        docker("pull", base)
        return
    except DockerFailed as failure:
        if base != BASE or shutil.which("mmdebstrap") is None:
            raise DockerFailed(f"{base} cannot be pulled, nor made: {failure}") from failure
    make = f"mmdebstrap --quiet --variant=minbase {SUITE} - | docker import - {BASE}"
    run(["bash", "-o", "pipefail", "-c", make], os.environ, BUILD_TIMEOUT)


def run(command: list[str], environment: Mapping[str, str], timeout: float) -> str:
    """Runs a program and returns what it prints; raises DockerFailed with what it complained of."""
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired as expired:
        raise DockerFailed(f"{' '.join(command)} took more than {timeout:.0f} s") from expired
    if result.returncode:
        raise DockerFailed((result.stdout + result.stderr).strip() or f"{command[0]} failed")
    return result.stdout
