"""Which address stands for the phones on the Internet, where this router is behind another NAT.

    ADDRESS   it is given: a cloud's, or one that is translated one to one
    "pcp"     what the default gateway says by PCP or NAT-PMP; each mapping is asked for there
    "stun"    what STUN servers see
    "auto"    the interface's own; where that is private, as "pcp", and else as "stun"

Messages can be rewritten where the gateway above grants each mapping, or its NAT shows a port to
all remotes alike, and by the same number. Where it does not, or nothing is known of it, no address
in a message would be right: all SIP passes as it is ("hands off"), until another look finds it
otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict

from alg.config import Config
from alg.upstream.mapper import Mapper
from alg.upstream.nat import Nat, NatType
from nat_table.endpoint import Endpoint, is_private

log = logging.getLogger("sipnat")

LOOK_INTERVAL = 20.0
IDLE_INTERVAL = 300.0
"""Seconds until the next look, and where the interface's own address is all that is known."""

START_PATIENCE = 1.5
"""Seconds that `auto` gives the gateway at start, three questions: most speak no PCP."""

MAX_SILENCES = 3
STUN_PORT = 3478
RESOLVE_TIMEOUT = 5.0

UNTOLD = (
    "{} is no address of the Internet: if another NAT is above, nothing tells its address, so set "
    "`external_address` or `stun_servers`"
)
UNTOLD_YET = "nothing tells the address of the NAT above yet, so messages name {} as before"
DEAF = "the gateway {} answers neither PCP nor NAT-PMP"
PASSES = "all SIP passes as it is, because no address in a message would be right: "
SILENT = f"{PASSES}no STUN server answers"
SYMMETRIC = f"{PASSES}the NAT above is symmetric, it gives a port for each remote"
CHANGES_PORTS = f"{PASSES}the NAT above does not keep port numbers"


class How(enum.Enum):
    """How the public address is known; the value is what is printed."""

    INTERFACE = "interface"
    CONFIGURED = "config"
    PCP = "pcp"
    NAT_PMP = "nat-pmp"
    STUN = "stun"
    EARLIER = "earlier run"


class UpstreamRow(TypedDict):
    """What the command line shows; these names never change."""

    public: str
    wire: str
    known_by: str
    nat: str
    ports: str | None
    granted: int
    state: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What is above: `public` is the address that messages name, `wire` that of the interface.

    `complaint` says what the administrator should know, "" for nothing.
    """

    how: How
    wire: str
    public: str
    nat: Nat | None = None
    is_hands_off: bool = False
    complaint: str = ""


class Upstream:
    """Looks at what is above, at start and then from time to time."""

    def __init__(
        self, config: Config, wire: str, default_gateway: Callable[[str], str | None]
    ) -> None:
        """Takes the external interface's address, and how to learn its default gateway."""
        self._mode = config.external_address
        self._servers = config.stun_servers
        self._device = config.external
        self._is_one_of_several = len(config.addresses) > 1
        self._default_gateway = default_gateway
        self._asked: Mapper | None = None
        self._silences = 0
        self._patience = START_PATIENCE if self._mode == "auto" else None
        self._wake = asyncio.Event()
        self._wire = wire
        self.found = Finding(How.INTERFACE, wire, wire)
        self.has_lost: Callable[[], None] = lambda: None
        """Called where the gateway above has lost what it had granted."""

    @property
    def mapper(self) -> Mapper | None:
        """Whom to ask for each mapping, None where nobody need be asked."""
        is_granting = self.found.how in (How.PCP, How.NAT_PMP) and not self.found.is_hands_off
        return self._asked if is_granting else None

    def close(self) -> None:
        """Asks nobody any more; what was granted stays."""
        if self._asked is not None:
            self._asked.close()

    def row(self, granted: int) -> UpstreamRow:
        """Returns what the command line shows, with how many mappings are granted above."""
        found = self.found
        return {
            "public": found.public,
            "wire": found.wire,
            "known_by": found.how.value,
            "nat": (found.nat.type if found.nat else NatType.UNKNOWN).value,
            "ports": found.nat.ports if found.nat else None,
            "granted": granted,
            "state": "hands off" if found.is_hands_off else "in use",
        }

    def move(self, wire: str) -> None:
        """Takes note that the interface has another address, and has `watch` look at once."""
        self._wire = wire
        found = self.found
        public = wire if found.public == found.wire else found.public
        self.found = replace(found, wire=wire, public=public, nat=None)
        self._wake.set()

    def remember(self, public: str) -> None:
        """Takes what an earlier run has named; it counts until something else is known."""
        if not is_private(public):
            self.found = Finding(How.EARLIER, self._wire, public)

    async def look(self) -> None:
        """Looks anew; what is found of an address that goes meanwhile does not count."""
        before, wire = self.found, self._wire
        found = await self._find(wire)
        self._patience = None
        if wire != self._wire:
            return
        self.found = found
        nat = found.nat
        if nat != before.nat and nat is not None:
            log.info(
                "the NAT above is %s, its address %s, port numbers are %s",
                *(nat.type.value, nat.address, nat.ports),
            )
        told = (found.public, found.how)
        if found.public != found.wire and told != (before.public, before.how):
            log.info("messages name %s, known by %s", found.public, found.how.value)
        if found.complaint and found.complaint != before.complaint:
            log.warning("%s", found.complaint)
        if before.is_hands_off and not found.is_hands_off:
            log.warning("SIP is rewritten again, to %s", found.public)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Looks again and again, and calls when something is other than it was."""
        while True:
            is_idle = self.found.how is How.INTERFACE and self._silences >= MAX_SILENCES
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._wake.wait(), IDLE_INTERVAL if is_idle else LOOK_INTERVAL
                )
            self._wake.clear()
            before = self.found, self.mapper
            try:
                await self.look()
                if (self.found, self.mapper) != before:
                    changed()
            except Exception:
                log.exception("messages may not follow what is above because of an error")

    async def _find(self, wire: str) -> Finding:
        if self._mode not in ("auto", "pcp", "stun"):
            return Finding(How.CONFIGURED, wire, self._mode)
        if self._mode == "auto" and (self._is_one_of_several or not is_private(wire)):
            return Finding(How.INTERFACE, wire, wire)
        if self._mode != "stun":
            address = await self._ask_gateway(wire)
            if address is not None and not (self._mode == "auto" and is_private(address)):
                return Finding(self._how_asked(), wire, address)
            self._silences = 0 if address else self._silences + 1
            if self.mapper is not None and self._silences < MAX_SILENCES:
                return self.found
        known = self.found
        is_earlier = known.how is How.EARLIER and self._silences < MAX_SILENCES
        if self._mode == "pcp" and not is_earlier:
            complaint = PASSES + DEAF.format(self._default_gateway(self._device))
            return Finding(How.PCP, wire, wire, is_hands_off=True, complaint=complaint)
        nat = await self._ask(wire) if self._servers and self._mode != "pcp" else None
        if nat is not None and nat.address is not None:
            return self._judge(wire, nat.address, nat)
        if is_earlier:
            return replace(known, complaint=UNTOLD_YET.format(known.public))
        if known.how is How.STUN and not known.is_hands_off:
            return known  # silent for once
        if self._mode == "auto":
            return Finding(How.INTERFACE, wire, wire, complaint=UNTOLD.format(wire))
        return Finding(How.STUN, wire, wire, nat, is_hands_off=True, complaint=SILENT)

    async def _ask(self, wire: str) -> Nat | None:
        """Returns what the servers say; of a NAT that is known only its address is looked at.

        Returns None where they cannot be asked, for the interface's address is gone.
        """
        from alg.upstream.stun import classify, public_address  # a quarter of a second, seldom used

        servers = await _resolve(self._servers)
        known = self.found.nat
        with contextlib.suppress(OSError):
            if known is not None and not self.found.is_hands_off:
                address = await public_address(servers, wire, self._device)
                if address in (None, known.address):
                    return known
            return await classify(servers, wire, self._device)
        return None

    async def _ask_gateway(self, wire: str) -> str | None:
        """Returns the public address that the default gateway tells."""
        gateway = self._default_gateway(self._device)
        asked = self._asked
        if asked is not None and (asked.gateway, asked.wire) != (gateway, wire):
            asked.close()
            asked = self._asked = None
        if asked is None and gateway is not None:
            asked = Mapper(gateway, wire, self._device, lambda: self.has_lost())
            try:
                await asked.open()
            except OSError as error:
                log.debug("the gateway %s cannot be asked: %s", gateway, error)
                return None
            self._asked = asked
        if asked is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                return await asked.address()
        return None

    def _how_asked(self) -> How:
        return How.NAT_PMP if self._asked is not None and self._asked.is_natpmp else How.PCP

    def _judge(self, wire: str, address: str, nat: Nat) -> Finding:
        if nat.type is NatType.SYMMETRIC:
            return Finding(How.STUN, wire, wire, nat, is_hands_off=True, complaint=SYMMETRIC)
        if not nat.keeps_ports:
            return Finding(How.STUN, wire, wire, nat, is_hands_off=True, complaint=CHANGES_PORTS)
        return Finding(How.STUN, wire, address, nat)


async def _resolve(names: tuple[str, ...]) -> list[Endpoint]:
    """Returns the endpoints of the servers that can be resolved now."""
    loop, found = asyncio.get_running_loop(), []
    for name in names:
        host, _, port = name.partition(":")
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                answers = await loop.getaddrinfo(
                    host, port or STUN_PORT, family=socket.AF_INET, type=socket.SOCK_DGRAM
                )
            found.append(Endpoint(*answers[0][4][:2]))
    return list(dict.fromkeys(found))  # one that has two names is no second remote
