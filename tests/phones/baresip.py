"""baresip (Debian's), without a sound card: it sends a tone, and what it hears goes nowhere."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from tests.lab.namespace import Namespace
from tests.phones.baresip_control import PORT, BaresipControl
from tests.phones.controlled_baresip import ControlledBaresip
from tests.phones.phone import RTP_PORT, Account, Phone, PhoneFailed

CONFIG = """
sip_listen {address}:5060
ctrl_tcp_listen 127.0.0.1:{control}
audio_source ausine,440
audio_player aubridge,nobody
audio_alert aubridge,nobody
ausrc_srate 48000
ausrc_channels 2
auplay_srate 48000
rtp_ports {first}-{last}
rtcp_mux no
module_path /usr/lib/baresip/modules
module g711.so
module ausine.so
module aubridge.so
module stun.so
module ice.so
module srtp.so
module uuid.so
module account.so
module ctrl_tcp.so
module menu.so
"""
EXPIRY = 120
READY_TIMEOUT = 10.0
LOG_LINES = 15


class Baresip(ControlledBaresip, Phone):
    """A baresip in the phone's namespace."""

    kind: ClassVar[str] = "baresip"
    programs: ClassVar[tuple[str, ...]] = ("baresip",)
    cannot: ClassVar[dict[str, str]] = {
        "session timers": "baresip 1.0 does not do RFC 4028",
    }

    def __init__(self, namespace: Namespace, address: str, account: Account) -> None:
        super().__init__(namespace, address, account)
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        self._log = Path(self._directory.name, "log")
        self._process: subprocess.Popen[bytes] | None = None
        self.registrar = account.server

    def start(self, timeout: float = 15.0) -> None:
        """Starts baresip, and returns when it is registered; raises PhoneFailed."""
        place = Path(self._directory.name)
        last = RTP_PORT + 2 * self.account.calls - 1
        config = CONFIG.format(address=self.address, control=PORT, first=RTP_PORT, last=last)
        place.joinpath("config").write_text(config)
        place.joinpath("accounts").write_text(self._account_line())
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self.namespace.command("baresip", "-f", str(place), "-s"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait(self._connect, READY_TIMEOUT, "does not listen to its control module")
        self.wait(lambda: "OK" in self.ask("reginfo"), timeout, "is not registered")

    def log(self) -> str:
        """Returns what it has printed."""
        return self._log.read_text(errors="replace")

    def failed(self, complaint: str) -> PhoneFailed:
        lines = [f"{self.account.user}: {complaint}"]
        with suppress(OSError):
            lines += self.log().splitlines()[-LOG_LINES:]
        return PhoneFailed("\n".join(lines))

    def close(self) -> None:
        """Ends it, registered or not."""
        super().close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()

    def _account_line(self) -> str:
        account = self.account
        parameters = [
            f"auth_pass={account.password}",
            f"regint={EXPIRY}",
            "answermode=auto",
            "audio_codecs=pcmu,pcma",
            "ptime=20",
        ]
        if account.stun:
            parameters.append(f"stunserver=stun:{account.stun}")
        if account.has_ice or account.stun:
            parameters.append(f"medianat={'ice' if account.has_ice else 'stun'}")
        if account.has_srtp:
            parameters.append("mediaenc=srtp-mand")
        uri = f"{self.uri(account.user)};transport={account.transport}"
        return f"<{uri}>;{';'.join(parameters)}\n"

    def _connect(self) -> bool:
        connection = self.namespace.tcp_socket("127.0.0.1")
        try:
            connection.connect(("127.0.0.1", PORT))
        except OSError:
            connection.close()
            return False
        self.control = BaresipControl(connection)
        return True
