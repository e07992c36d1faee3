"""rtpengine as a relay in user space: it carries the media of the usual proxy.

It is told of a call by an offer and an answer, bencoded dictionaries over UDP (its "ng" protocol),
as a proxy would tell it, and says at which of its ports each side is to send.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.peers.box import START_TIMEOUT, Box
from tests.bench.peers.rtpload import PHONE_PORT, REMOTE_PORT, Flow
from tests.bench.peers.stage import Stage
from tests.lab.agents import wait_until
from tests.lab.network import EXTERNAL, LAN_ROUTER

NG_ADDRESS = ("127.0.0.1", 2223)
PORTS = (16384, 60000)
NG_TIMEOUT = 5.0
SDP = (
    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
)

Bencoded = str | Sequence["Bencoded"] | dict[str, "Bencoded"]


class Rtpengine(Box):
    """rtpengine's daemon with a leg on either side of the router."""

    name = "rtpengine"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        low, high = map(str, PORTS)
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        log = Path(self._directory.name, "log")
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                stage.router.command(
                    *("rtpengine", "--config-file=none", "--table=-1", "--timeout=3600"),
                    *(f"--interface=lan/{LAN_ROUTER}", f"--interface=wan/{EXTERNAL}"),
                    *("--listen-ng={}:{}".format(*NG_ADDRESS), "--port-min", low),
                    *("--port-max", high, "--foreground", "--log-stderr", "--log-level=3"),
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._ng = stage.router.udp_socket("127.0.0.1")
        self._ng.settimeout(NG_TIMEOUT)
        self._ng.connect(NG_ADDRESS)
        if not wait_until(self._is_answering, START_TIMEOUT):
            text = log.read_text(errors="replace")
            self.close()
            raise RuntimeError(f"rtpengine does not answer:\n{text[-2000:]}")

    @property
    def pids(self) -> tuple[int, ...]:
        """The daemon's process."""
        return (self._process.pid,)

    def relay(self, phone: str, remote: str) -> Flow:
        """Sets up a call between two addresses; raises RuntimeError where it is refused."""
        names: dict[str, Bencoded] = {"call-id": f"{phone}-{remote}", "from-tag": "phone"}
        self._ask("offer", phone, PHONE_PORT, {**names, "direction": ["lan", "wan"]})
        port = self._ask("answer", remote, REMOTE_PORT, {**names, "to-tag": "remote"})
        return Flow(phone, remote, LAN_ROUTER, port)

    def close(self) -> None:
        """Ends it."""
        self._ng.close()
        self._process.terminate()
        try:
            self._process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()

    def _is_answering(self) -> bool:
        try:
            self._ng.send(b"0 " + bencode({"command": "ping"}))
            return b"pong" in self._ng.recv(0xFFFF)
        except OSError:
            return False

    def _ask(self, command: str, host: str, port: int, keys: dict[str, Bencoded]) -> int:
        """Returns the port at which the other side is to send."""
        sdp = SDP.format(host=host, port=port)
        about: dict[str, Bencoded] = {
            "command": command,
            "sdp": sdp,
            "ICE": "remove",
            "replace": ["origin", "session-connection"],
        }
        cookie = f"{keys['call-id']}-{command} ".encode()
        self._ng.send(cookie + bencode({**about, **keys}))
        answer = self._ng.recv(0xFFFF)
        found = re.search(rb"m=audio (\d+)", answer)
        if not answer.startswith(cookie) or found is None:
            raise RuntimeError(f"rtpengine refuses a call: {answer!r}")
        return int(found[1])


def bencode(value: Bencoded) -> bytes:
    """Encodes text, lists and dictionaries as BitTorrent does (BEP 3)."""
    if isinstance(value, str):
        text = value.encode()
        return b"%d:%b" % (len(text), text)
    if isinstance(value, dict):
        items = sorted(value.items())
        return b"d%be" % b"".join(bencode(key) + bencode(each) for key, each in items)
    return b"l%be" % b"".join(map(bencode, value))
