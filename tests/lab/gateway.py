"""The real gateway process inside the lab's router: started, watched, stopped, killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.lab.closable import Closable
from tests.lab.namespace import Namespace
from tests.lab.network import EXTERNAL_INTERFACE, INTERNAL_INTERFACE

SIPNAT = str(Path(sys.executable).with_name("sipnat"))
READY = "ready"


class GatewayFailed(AssertionError):
    """The gateway ended or stayed silent where it must not; carries its log."""


class Gateway(Closable):
    """`sipnat run` in the router's namespace; `log` is what it printed since it last started.

    Its configuration file is made of `keys`; what it stores is gone with it.
    """

    def __init__(self, router: Namespace, *options: str, **keys: object) -> None:
        self.log: list[str] = []
        self._router = router
        self._options = options
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        # Whoever runs sipnat, it is not the configuration that he must not read.
        Path(self._directory.name).chmod(0o755)
        self.control = str(Path(self._directory.name, "control.sock"))
        self._config = Path(self._directory.name, "sipnat.toml")
        self.store = str(Path(self._directory.name, "state.db"))
        self.configure(**keys)
        self._is_ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    def __enter__(self) -> Self:
        self.start()
        return self

    def configure(self, **keys: object) -> None:
        """Writes another configuration, for the next start.

        A mapping becomes a table; `static` is a list of tables.
        """
        static = keys.pop("static", ())
        assert isinstance(static, Sequence)
        tables = [f"[[static]]\n{_toml(table)}" for table in static]
        for key, table in list(keys.items()):
            if isinstance(table, Mapping):
                tables.append(f"[{key}]\n{_toml(table)}")
                del keys[key]
        self._config.write_text("".join((_toml({"store": self.store, **keys}), *tables)))

    def start(self, timeout: float = 15.0) -> None:
        """Starts the process and returns when it says that it handles packets."""
        self._is_ready.clear()
        self.log.clear()
        self._process = subprocess.Popen(
            self._router.command(*self.arguments()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self._is_ready.wait(timeout)
        if not self.is_running or READY not in self.log:
            self.close()
            raise GatewayFailed("sipnat did not get ready:\n" + "\n".join(self.log))

    def arguments(self) -> list[str]:
        """Returns the command line."""
        return [
            *(SIPNAT, "run", "--internal", INTERNAL_INTERFACE, "--external", EXTERNAL_INTERFACE),
            *("--control", self.control, "--config", str(self._config), *self._options),
        ]

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; raises GatewayFailed if it was never started."""
        if self._process is None:
            raise GatewayFailed("sipnat was not started")
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10.0) -> int:
        """Asks the process to end and returns its exit status."""
        return self._end(number, timeout)

    def kill(self) -> None:
        """Kills the process as a crash would (SIGKILL): it cannot clean anything up."""
        self._end(signal.SIGKILL, 10.0)

    def close(self) -> None:
        """Ends the process however it stands and removes its files."""
        if self.is_running:
            self.kill()
        self._directory.cleanup()

    def show_mappings(self, *kinds: str) -> list[dict[str, Any]]:
        """Returns what `sipnat show mappings --json` prints, all of it or what is of `kinds`."""
        rows: list[dict[str, Any]] = json.loads(self.show("mappings", "--json"))
        return [row for row in rows if not kinds or row["kind"] in kinds]

    def show_connections(self) -> list[dict[str, Any]]:
        """Returns what `sipnat show connections --json` prints."""
        rows: list[dict[str, Any]] = json.loads(self.show("connections", "--json"))
        return rows

    def show_reasons(self) -> dict[str, int]:
        """Returns the counts that `sipnat show reasons --json` prints, by reason."""
        return {row["reason"]: row["count"] for row in json.loads(self.show("reasons", "--json"))}

    def show(self, *arguments: str) -> str:
        """Returns what `sipnat show ...` prints."""
        return self.ask("show", *arguments)

    def ask(self, *arguments: str) -> str:
        """Returns what a command prints that asks this gateway; raises RuntimeError if it fails."""
        return self._router.run(SIPNAT, *arguments, "--control", self.control)

    def _end(self, number: signal.Signals, timeout: float) -> int:
        process = self._process
        if process is None:
            raise GatewayFailed("sipnat was not started")
        process.send_signal(number)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise GatewayFailed("sipnat did not end:\n" + "\n".join(self.log)) from None
        self._reader.join(timeout)
        return status

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Collects the log, and wakes `start` at the ready line or at the end of output."""
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.rstrip("\n"))
            if self.log[-1] == READY:
                self._is_ready.set()
        self._is_ready.set()
        process.stdout.close()


def _toml(keys: Mapping[str, object]) -> str:
    """Renders strings, numbers, booleans and lists of them, which look as they do in JSON."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
