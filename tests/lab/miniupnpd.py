"""Debian's miniupnpd as the gateway above: it maps ports by PCP and by NAT-PMP.

It serves no address that is reserved for documentation, so its NAT needs another public one.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path

from tests.lab.closable import Closable
from tests.lab.double_nat import UPPER, WIRE, DoubleNat
from tests.lab.network import EXTERNAL_INTERFACE

PUBLIC = "1.2.3.1"

# What miniupnpd opens is in three chains by these names; who calls them is the router's business.
CHAINS = """
table inet filter
delete table inet filter
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain prerouting {
        type nat hook prerouting priority dstnat - 1;
        jump prerouting_miniupnpd
    }
}
"""
CONFIG = f"""
ext_ifname={EXTERNAL_INTERFACE}
ext_ip={{public}}
listening_ip=eth0
enable_upnp=no
enable_natpmp=yes
uuid=00000000-0000-0000-0000-000000000000
allow 1024-65535 {WIRE}/24 1024-65535
"""


class Miniupnpd(Closable):
    """The daemon in the upper namespace; `forget` is what a reboot does."""

    def __init__(self, network: DoubleNat) -> None:
        self._upper = network.upper
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        self._config = Path(self._directory.name, "conf")
        self._config.write_text(CONFIG.format(public=network.public))
        self._upper.run("nft", "-f", "-", text=CHAINS)
        self.start()

    def start(self) -> None:
        """Starts the daemon; it serves a moment later."""
        self._process = subprocess.Popen(
            self._upper.command(
                *("miniupnpd", "-d", "-f", str(self._config)),
                *("-P", f"{self._directory.name}/pid"),
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Kills the daemon; what it has opened stays."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Has the daemon answer nobody until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Has it answer what was asked meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Loses all that was opened, and every flow."""
        self._upper.run("nft", "-f", "-", text=CHAINS)
        self._upper.run("conntrack", "-F")

    def opened(self) -> set[str]:
        """Returns what is open, such as "udp 4000"."""
        rules = self._upper.run("nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")
        protocols = {"0x11": "udp", "0x6": "tcp"}
        return {
            f"{protocols[words[words.index('dport') - 2]]} {words[words.index('dport') + 1]}"
            for words in map(str.split, rules.splitlines())
            if "dport" in words
        }

    def occupy(self, port: int) -> None:
        """Has another client of this gateway take a port."""
        client = ("natpmpc", "-g", UPPER, "-a", str(port), str(port + 1), "udp", "600")
        self._upper.run(*client)

    def close(self) -> None:
        """Ends the daemon."""
        self.stop()
        self._directory.cleanup()
