"""pjsua (PJSIP 2.15, `pjsua2` from PyPI), which `pjsua_process` runs in the phone's namespace."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from tests.phones.program import CallState, ProgramPhone

MEDIA_STATES = {
    "active": CallState.UP,
    "held": CallState.HELD,
    "held by the other side": CallState.HELD_BY_OTHER,
}


class Pjsua(ProgramPhone):
    """A phone made of PJSIP's own user agent library."""

    kind = "pjsua"

    @classmethod
    def is_installed(cls) -> bool:
        return find_spec("pjsua2") is not None

    def command(self, directory: Path) -> list[str]:
        settings = json.dumps({"address": self.address} | asdict(self.account))
        # The library's own lines must not be cut where one of ours follows.
        by_lines = ("stdbuf", "-oL")
        return [*by_lines, sys.executable, "-m", "tests.phones.pjsua_process", settings]

    def word(self, verb: str, *arguments: str | int) -> str:
        return json.dumps([verb, *arguments])

    def heed(self, line: str) -> None:
        if not line.startswith("["):
            return
        match json.loads(line):
            case ["registration", code, *_]:
                self.is_registered = code == 200
            case ["call", number]:
                self.calls[number] = CallState.BEGUN
            case ["media", number, state]:
                self.calls[number] = MEDIA_STATES.get(state, CallState.BEGUN)
            case ["end", number, *_]:
                self.calls.pop(number, None)
