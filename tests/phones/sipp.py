"""SIPp as a phone: a program for each thing it does, from a scenario file of its own.

It plays its audio from a capture that is made here, RTP 50 times a second and a sender report each
second, from port 4000 and 4001. A call that it has made ends by itself after TALK: nobody can tell
a running SIPp to hang up.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import dpkt

from tests.lab.agents import wait_until
from tests.lab.namespace import Namespace
from tests.phones.phone import RTP_PORT, Account, Phone, PhoneFailed

SCENARIOS = Path(__file__).with_name("sipp_scenarios")
SIP_PORT = 5060
TALK = 12.0
SOURCE_ID = 0x51BB
PACKETS_PER_SECOND = 50
SAMPLES = 160
FIXED = "SIPp plays a dialog as it is written down"


class Sipp(Phone):
    """A SIPp that has registered, and then waits for a call or makes one."""

    kind: ClassVar[str] = "sipp"
    programs: ClassVar[tuple[str, ...]] = ("sipp",)
    cannot: ClassVar[dict[str, str]] = {
        "hold": FIXED,
        "transfer": FIXED,
        "STUN": "SIPp 3.6 does not do STUN",
        "ICE": "SIPp 3.6 does not do ICE",
        "SRTP": "SIPp 3.6 does not do SRTP",
        "session timers": FIXED,
    }

    def __init__(self, namespace: Namespace, address: str, account: Account) -> None:
        super().__init__(namespace, address, account)
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        self._place = Path(self._directory.name)
        self._process: subprocess.Popen[bytes] | None = None
        # SIPp listens where RTP comes, not where RTCP does.
        self._rtcp = namespace.udp_socket(address, RTP_PORT + 1)
        with self._place.joinpath("audio.pcap").open("wb") as pcap:
            write_audio(dpkt.pcap.Writer(pcap), 2 * TALK)

    def start(self, timeout: float = 15.0) -> None:
        """Registers, and returns when it waits for a call; raises PhoneFailed."""
        self._run("register")
        self._wait_for_exit(timeout)
        self._run("answer")
        self._wait(self._is_listening, timeout, "does not listen")

    def call(self, user: str, timeout: float = 15.0) -> None:
        """Calls a user, and returns when the call is up; raises PhoneFailed."""
        self._stop()
        self._run("call", user)
        self._wait(self._is_up, timeout, f"{user} did not answer")

    def wait_for_call(self, timeout: float = 15.0) -> None:
        """Returns when a call that came in is up; raises PhoneFailed."""
        self._wait(self._is_up, timeout, "nobody has called")

    def hold(self) -> None:
        """Cannot."""
        raise PhoneFailed(FIXED)

    def resume(self) -> None:
        """Cannot."""
        raise PhoneFailed(FIXED)

    def transfer(self, user: str, timeout: float = 15.0) -> None:
        """Cannot."""
        raise PhoneFailed(FIXED)

    def hang_up(self) -> None:
        """Waits until the call that it has made is over by itself."""
        self._wait_for_exit(TALK + 5.0)

    def wait_for_end(self, timeout: float = 10.0) -> None:
        """Returns when the call is over; raises PhoneFailed."""
        self._wait_for_exit(timeout)

    def log(self) -> str:
        """Returns what it has printed, and every message."""
        texts = (path.read_text(errors="replace") for path in sorted(self._place.glob("*.log")))
        return "\n".join(texts)

    def close(self) -> None:
        """Ends it."""
        self._stop()
        self._rtcp.close()
        self._directory.cleanup()

    def _run(self, scenario: str, called: str = "") -> None:
        account = self.account
        self._place.joinpath("up.log").unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self.namespace.command(
                *("sipp", f"{account.server}:{SIP_PORT}", "-sf", f"{SCENARIOS}/{scenario}.xml"),
                *("-i", self.address, "-p", str(SIP_PORT), "-mi", self.address),
                *("-mp", str(RTP_PORT), "-t", "t1" if account.transport == "tcp" else "u1"),
                *("-key", "user", account.user, "-s", called or account.user),
                *("-au", account.user, "-ap", account.password),
                *("-m", "1", "-d", str(int(TALK * 1000)), "-nostdin"),
                *("-trace_logs", "-log_file", "up.log", "-trace_err", "-error_file", "error.log"),
                *("-trace_msg", "-message_file", f"{scenario}.log"),
            ),
            cwd=self._place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _is_listening(self) -> bool:
        protocol = "-Hltn" if self.account.transport == "tcp" else "-Hlun"
        return bool(self.namespace.run("ss", protocol, "sport", "=", f":{SIP_PORT}"))

    def _is_up(self) -> bool:
        up = self._place / "up.log"
        return up.exists() and "up" in up.read_text()

    def _wait_for_exit(self, timeout: float) -> None:
        assert self._process is not None
        process = self._process
        self._wait(lambda: process.poll() is not None, timeout, "is not done")
        if process.returncode:
            raise self._failed(f"sipp ended with {process.returncode}")

    def _wait(self, condition: Callable[[], bool], timeout: float, complaint: str) -> None:
        if not wait_until(condition, timeout):
            raise self._failed(f"{complaint} within {timeout:.0f} s")

    def _failed(self, complaint: str) -> PhoneFailed:
        return PhoneFailed(f"{self.account.user}: {complaint}\n{self.log()[-2000:]}")


def write_audio(pcap: dpkt.pcap.Writer, seconds: float) -> None:
    """Writes silence as a phone sends it: SIPp puts the call's own addresses and ports there."""
    for number in range(int(seconds * PACKETS_PER_SECOND)):
        at = number / PACKETS_PER_SECOND
        stamp = number * SAMPLES
        rtp = struct.pack("!BBHII", 0x80, 0, number & 0xFFFF, stamp, SOURCE_ID) + b"\xff" * SAMPLES
        pcap.writepkt(_frame(RTP_PORT, rtp), at)
        if number % PACKETS_PER_SECOND == 0:
            report = struct.pack(
                "!BBHIIIIII", 0x80, 200, 6, SOURCE_ID, int(at), 0, stamp, number, 0
            )
            pcap.writepkt(_frame(RTP_PORT + 1, report), at)


def _frame(port: int, payload: bytes) -> bytes:
    udp = dpkt.udp.UDP(sport=port, dport=port, data=payload, ulen=8 + len(payload))
    packet = dpkt.ip.IP(p=dpkt.ip.IP_PROTO_UDP, src=b"\x7f\0\0\1", dst=b"\x7f\0\0\1", data=udp)
    packet.len = len(packet)
    return bytes(dpkt.ethernet.Ethernet(type=dpkt.ethernet.ETH_TYPE_IP, data=packet))
