"""The deployment guide as tests follow it: its commands, run on a router as they are written."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.agents import wait_until
from tests.lab.gateway import READY, SIPNAT
from tests.lab.sandbox import Sandbox

DEPLOY = Path(__file__).resolve().parents[2] / "alg" / "deploy"
CONFIG = "/etc/sipnat/sipnat.toml"
_SECTION = re.compile(r"^##+ (.*)\n", re.MULTILINE)
_BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s+# .*")


def blocks(title: str, kind: str = "sh", *, part: str = "") -> list[str]:
    """Returns the blocks of a kind in a section, or in the part of it that is named."""
    pieces = _SECTION.split((DEPLOY / "README.md").read_text())
    titles, texts = pieces[1::2], pieces[2::2]
    at = titles.index(title)
    at = titles.index(part, at) if part else at
    return [text for found, text in _BLOCK.findall(texts[at]) if found == kind]


def commands(text: str) -> list[str]:
    """Returns the commands of a block, without comments and in one line each."""
    return [_COMMENT.sub("", line) for line in text.replace("\\\n", "").splitlines()]


def all_commands() -> list[str]:
    """Returns every command of the guide."""
    text = (DEPLOY / "README.md").read_text()
    found = (commands(block) for kind, block in _BLOCK.findall(text) if kind == "sh")
    return [each for block in found for each in block]


def follow(router: Sandbox, texts: Iterable[str]) -> None:
    """Runs the commands of these blocks; `sipnat doctor` must find nothing."""
    for text in texts:
        for command in commands(text):
            if command.startswith("sipnat doctor"):
                assert complaints(router, command) == []
            else:
                router.run("sh", "-ec", command)


def complaints(router: Sandbox, command: str = "sipnat doctor") -> list[dict[str, Any]]:
    """Returns what the doctor finds; the clock is this machine's, and may be wrong."""
    asking = router.command(*command.split(), "--json")
    done = subprocess.run(asking, capture_output=True, text=True, timeout=40)
    assert not done.stderr, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return [row for row in rows if row["level"] != "ok" and row["check"] != "clock"]


def furnish(router: Sandbox, configuration: str) -> None:
    """Puts there what the package of sipnat installs, and a configuration."""
    router.write(CONFIG, configuration)
    router.run("ln", "-sfn", SIPNAT, "/usr/local/bin/sipnat")
    router.run("mkdir", "-p", "/run/sipnat", "/var/lib/sipnat", "/usr/share/sipnat")
    router.run("ln", "-sfn", str(DEPLOY / "firewall"), "/usr/share/sipnat/firewall")


@contextmanager
def running(router: Sandbox, log: Path, config: str = CONFIG) -> Iterator[None]:
    """Runs sipnat as its unit does, from ready to a clean stop."""
    with log.open("w") as output:
        sipnat = subprocess.Popen(
            router.command("sipnat", "run", "--config", config),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            assert wait_until(lambda: READY in log.read_text().splitlines(), 20), log.read_text()
            yield
            sipnat.terminate()
            assert sipnat.wait(30) == 0, log.read_text()
        finally:
            sipnat.kill()
            sipnat.wait()
