"""One cell of the matrix while it is played: the town, its registrar and gateway, and who is on.

A scenario is a function of a stage; what it asks for is checked here, and what is not so is raised
as PhoneFailed or CellFailed, whose first line is the cell's complaint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import dpkt

from tests.interop.media_counter import MediaCounter
from tests.interop.registrar import Registrar
from tests.interop.town import PHONES, SECOND_STUN, SERVER, STUN, Town
from tests.lab.agents import wait_until
from tests.lab.closable import Closable
from tests.lab.coturn import Coturn
from tests.lab.gateway import Gateway
from tests.phones.baresip import Baresip
from tests.phones.counts import Counts
from tests.phones.linphone import Linphone
from tests.phones.phone import Account, Phone
from tests.phones.pjsua import Pjsua
from tests.phones.sipp import Sipp

KINDS: Mapping[str, type[Phone]] = {kind.kind: kind for kind in (Baresip, Linphone, Pjsua, Sipp)}
PEERS: Mapping[str, type[Phone]] = {"sipp": Baresip}
"""Who calls, and is called by, a kind that is no match for itself."""
SERVERS = ("kamailio", "nathelper")
TRANSPORTS = ("udp", "tcp")
GATEWAYS = ("sipnat", "none", "helper", "routed")
"""The gateway; masquerade alone; masquerade and the kernel's SIP helper; no NAT at all."""

HELPER = """
table ip sip_helper {
    ct helper sip-udp { type "sip" protocol udp; l3proto ip; }
    ct helper sip-tcp { type "sip" protocol tcp; l3proto ip; }
    chain prerouting {
        type filter hook prerouting priority filter;
        udp dport 5060 ct helper set "sip-udp"
        tcp dport 5060 ct helper set "sip-tcp"
    }
}
"""
EXPECTED_REASONS = {
    *("rewritten", "nothing-to-change", "not-translated", "hands-off", "keepalive"),
    *("not-sip", "not-udp", "diverted", "answered"),
}
START_TIMEOUT = 40.0
PACKETS = 50
AUDIO_TIMEOUT = 6.0
RTCP_TIMEOUT = 12.0
LOSS = 0.1
BYE_TIMEOUT = 5.0
EMPTY_TIMEOUT = 10.0


class CellFailed(AssertionError):
    """Something is not as it should be after what the phones say went well."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Which phone does what, over what, with which server, through which gateway.

    Whom it calls, and who calls it, are of its own kind, or else of that of `peer`.
    """

    phone: str
    server: str
    transport: str
    scenario: str
    gateway: str
    peer: str = ""

    @property
    def who(self) -> str:
        """The kinds of phones that are in it, in words."""
        return f"{self.phone} with {self.peer}" if self.peer else self.phone

    @property
    def kinds(self) -> tuple[type[Phone], type[Phone]]:
        """The kind under test, and that of the others."""
        kind = KINDS[self.phone]
        return kind, KINDS[self.peer] if self.peer else PEERS.get(self.phone, kind)

    def __str__(self) -> str:
        return f"{self.who} {self.server} {self.transport} {self.gateway}: {self.scenario}"


class Stage(Closable):
    """The town of one cell; a phone is there, and registered, from the first time it is asked for.

    Where it is closed with `keep`, a folder, the logs and captures are kept there.
    """

    def __init__(self, cell: Cell, *, keep: Path | None = None) -> None:
        self.cell = cell
        self.account = Account("", "", SERVER, cell.transport)
        self._keep = keep
        self._phones: dict[str, Phone] = {}
        self._counters: dict[str, MediaCounter] = {}
        self._gateway: Gateway | None = None
        self._stack = ExitStack()
        try:
            self._town = self._stack.enter_context(Town(is_masqueraded=cell.gateway != "routed"))
            self._registrar = self._stack.enter_context(Registrar(self._town.server, cell.server))
            if cell.gateway == "sipnat":
                self._gateway = Gateway(self._town.router)
                self._stack.callback(self._gateway.close)
                self._gateway.start(START_TIMEOUT)
            elif cell.gateway == "helper":
                self._town.router.run("nft", "-f", "-", text=HELPER)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Closes everybody."""
        try:
            if self._keep is not None:
                self._save(self._keep)
        finally:
            self._stack.close()

    def add_stun(self) -> None:
        """Has the phones that come from now on ask a STUN server."""
        stun = self._stack.enter_context(Coturn(self._town.server, STUN, SECOND_STUN))
        self.account = replace(self.account, stun=str(stun.endpoint))

    def phone(self, name: str) -> Phone:
        """Returns who has this name; alice is of the kind under test, and so are the others."""
        if name not in self._phones:
            kind = self.cell.kinds[name != "alice"]
            # Who is transferred has both calls up for a moment.
            calls = 2 if name == "carol" else 1
            account = replace(self.account, user=name, password=f"{name}-secret", calls=calls)
            namespace = self._town.phones[name]
            counter = MediaCounter(namespace, is_keeping=self._keep is not None)
            self._counters[name] = self._stack.enter_context(counter)
            phone = self._stack.enter_context(kind(namespace, PHONES[name], account))
            self._phones[name] = phone
            phone.start()
        return self._phones[name]

    def connect(self, caller: str, called: str) -> None:
        """Has one call the other, both registered, and checks that they hear each other."""
        there = self.phone(called)
        self.phone(caller).call(called)
        there.wait_for_call()
        self.talk(caller, called)

    def talk(self, *names: str) -> None:
        """Waits until both have sent and got RTP and RTCP; raises CellFailed."""
        before = {name: self._counters[name].counts for name in names}
        self._wait_for_packets(before, ("rtp_sent", "rtp_received"), PACKETS, AUDIO_TIMEOUT)
        self._wait_for_packets(before, ("rtcp_sent", "rtcp_received"), 1, RTCP_TIMEOUT)
        one, other = self._since(before).items()
        for (name, counts), (_, peer) in ((one, other), (other, one)):
            if counts.refused:
                raise CellFailed(f"{name} was sent {counts.refused} packets to a closed port")
            if counts.rtp_received < (1 - LOSS) * peer.rtp_sent:
                raise CellFailed(f"{name} got {counts.rtp_received} of {peer.rtp_sent} RTP packets")

    def expect_renewal(self, name: str, action: Callable[[], None], timeout: float = 6.0) -> None:
        """Checks that an action makes a re-INVITE or UPDATE that is seen, and taken, at `name`."""
        counter = self._counters[name]
        before = counter.renewed
        action()
        if not wait_until(lambda: counter.renewed > before, timeout):
            raise CellFailed(f"{name} has taken no new offer within {timeout:.0f} s")

    def end(self, who: str, other: str) -> None:
        """Has one hang up, and checks that the call is over everywhere."""
        self.phone(who).hang_up()
        for name in (who, other):
            self.phone(name).wait_for_end()
        if not wait_until(lambda: not self._waiting_for_bye(who, other), BYE_TIMEOUT):
            raise CellFailed(f"{self._waiting_for_bye(who, other)[0]}: a BYE has got no 200")

    def check_gateway(self) -> None:
        """Checks that nothing of a call is left in the gateway, and that nothing went wrong."""
        gateway = self._gateway
        if gateway is None:
            return

        def left() -> list[str]:
            return [
                f"{row['kind']} {row['internal']} {row['state']}"
                for row in gateway.show_mappings()
                if row["kind"] != "sip" or row["call_id"]
            ]

        if not wait_until(lambda: not left(), EMPTY_TIMEOUT):
            raise CellFailed(f"left in the table: {', '.join(left())}")
        odd = {r: n for r, n in gateway.show_reasons().items() if n and r not in EXPECTED_REASONS}
        if odd:
            raise CellFailed(f"reasons: {odd}")

    def _waiting_for_bye(self, *names: str) -> list[str]:
        return [name for name in names if not self._counters[name].is_hung_up]

    def _since(self, before: Mapping[str, Counts]) -> dict[str, Counts]:
        return {name: self._counters[name].counts.since(then) for name, then in before.items()}

    def _wait_for_packets(
        self, before: Mapping[str, Counts], fields: tuple[str, ...], least: int, timeout: float
    ) -> None:
        def missing() -> list[str]:
            return [
                f"{name} {field.replace('_', ' ')} {getattr(counts, field)}"
                for name, counts in self._since(before).items()
                for field in fields
                if getattr(counts, field) < least
            ]

        if not wait_until(lambda: not missing(), timeout):
            raise CellFailed(", ".join(missing()))

    def _save(self, folder: Path) -> None:
        """Writes down what everybody has printed, and what has passed their interfaces."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, phone in self._phones.items():
            folder.joinpath(f"{name}.log").write_text(phone.log())
        for name, counter in self._counters.items():
            with folder.joinpath(f"{name}.pcap").open("wb") as pcap:
                writer = dpkt.pcap.Writer(pcap)
                for seen_at, frame in list(counter.frames):
                    writer.writepkt(frame, seen_at)
        folder.joinpath("registrar.log").write_text(self._registrar.log())
        if self._gateway is not None and self._gateway.is_running:
            shown = (self._gateway.show(what) for what in ("mappings", "reasons"))
            folder.joinpath("sipnat.log").write_text("\n".join((*self._gateway.log, *shown)))
