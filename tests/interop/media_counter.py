"""What passes a phone's interface: its RTP and RTCP, counted by direction, and how its calls end.

A packet socket sees it, whatever the phone thinks of it; an ICMP error that the phone sends shows a
packet that came to a closed port. Media is told from the rest by its first byte, RTCP from RTP by
its type (RFC 5761 section 4), so that SRTP counts as well. SIP over TCP is read segment by segment:
each message of a phone fits into one.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import replace

from tests.interop.town import INTERFACE
from tests.lab.closable import Closable
from tests.lab.namespace import SO_RCVBUFFORCE, Namespace
from tests.phones.counts import Counts

ETH_P_ALL = 0x0003
ETH_P_IP = b"\x08\x00"
ETHERNET_LENGTH = 14
ICMP, TCP, UDP = 1, 6, 17
PORT_UNREACHABLE = b"\x03\x03"
TICK = 0.1
BUFFER = 8 << 20

_CALL_ID = re.compile(rb"^(?:Call-ID|i)[ \t]*:[ \t]*(\S+)", re.M | re.I)
_CSEQ = re.compile(rb"^CSeq[ \t]*:[ \t]*(\d+)[ \t]+(\w+)", re.M | re.I)
_TO_TAG = re.compile(rb"^(?:To|t)[ \t]*:[^\r\n]*;tag=", re.M | re.I)


class MediaCounter(Closable):
    """Counts at the interface of a phone from now on; `frames` are kept for a capture file."""

    def __init__(self, namespace: Namespace, *, is_keeping: bool = False) -> None:
        self.counts = Counts()
        self.frames: list[tuple[float, bytes]] = []
        self._byes: dict[bytes, int] = {}
        self._renewals: dict[tuple[bytes, bytes], bool] = {}
        self._is_keeping = is_keeping
        self._is_closing = False
        self._socket = namespace.call(_packet_socket)
        self._thread = threading.Thread(target=self._run, name="media counter", daemon=True)
        self._thread.start()

    @property
    def is_hung_up(self) -> bool:
        """Whether a call has ended here, and each BYE has got its 200."""
        return bool(self._byes) and set(self._byes.values()) == {200}

    @property
    def renewed(self) -> int:
        """How many re-INVITEs and UPDATEs have got their 200."""
        return sum(self._renewals.values())

    def close(self) -> None:
        """Stops counting."""
        self._is_closing = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._is_closing:
            try:
                frame, (_, _, kind, _, _) = self._socket.recvfrom(65535)
            except TimeoutError:
                continue
            except OSError:  # the interface has gone
                return
            self._see(frame, kind == socket.PACKET_OUTGOING)

    def _see(self, frame: bytes, is_sent: bool) -> None:
        if self._is_keeping:
            self.frames.append((time.time(), frame))
        packet = frame[ETHERNET_LENGTH:]
        if frame[12:ETHERNET_LENGTH] != ETH_P_IP or len(packet) < 20:
            return
        protocol, body = packet[9], packet[(packet[0] & 0xF) * 4 :]
        if protocol == UDP:
            self._see_datagram(body[8:], is_sent)
        elif protocol == TCP and len(body) > 12:
            self._see_message(body[(body[12] >> 4) * 4 :])
        elif protocol == ICMP and is_sent and body.startswith(PORT_UNREACHABLE):
            self.counts = replace(self.counts, refused=self.counts.refused + 1)

    def _see_datagram(self, payload: bytes, is_sent: bool) -> None:
        if len(payload) < 8:
            return
        if payload[0] >> 6 != 2:
            self._see_message(payload)
            return
        kind = "rtcp" if 192 <= payload[1] <= 223 else "rtp"
        name = f"{kind}_{'sent' if is_sent else 'received'}"
        self.counts = replace(self.counts, **{name: getattr(self.counts, name) + 1})

    def _see_message(self, message: bytes) -> None:
        call, cseq = _CALL_ID.search(message), _CSEQ.search(message)
        if call is None or cseq is None:
            return
        number, method = cseq.groups()
        is_request = not message.startswith(b"SIP/2.0 ")
        status = 0 if is_request else int(message[8:11])
        if method == b"BYE":
            self._byes[call[1]] = max(status, self._byes.get(call[1], 0))
        elif method in (b"INVITE", b"UPDATE"):
            exchange = call[1], number
            if is_request and _TO_TAG.search(message):
                self._renewals.setdefault(exchange, False)
            elif status == 200 and exchange in self._renewals:
                self._renewals[exchange] = True


def _packet_socket() -> socket.socket:
    seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    seen.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    seen.bind((INTERFACE, ETH_P_ALL))
    seen.settimeout(TICK)
    return seen
