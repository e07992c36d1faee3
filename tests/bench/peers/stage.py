"""Where a box is measured: the lab's three namespaces, with a crowd of phones behind the router.

    phones 10.1.0.0/16 on [lan] 10.0.0.20 --- 10.0.0.1 [router] 203.0.113.1 --- 203.0.113.10 [wan]

Every address of the crowd is local to the lan's machine, so that one socket speaks for all phones
(IP_PKTINFO). The router masquerades, as it would before any of the boxes is put on it. `is_wire`
joins lan and wan without a router: what a load costs by itself.
"""

from __future__ import annotations

from tests.lab.closable import Closable
from tests.lab.namespace import Namespace
from tests.lab.network import EXTERNAL_INTERFACE, PHONE_1, Network

CROWD = "10.1.0.0/16"
EXTERNAL_ADDRESSES = tuple(f"203.0.113.{number}" for number in range(1, 5))
"""The router's: one address has ports for 60,000 mappings at the most."""
WIRE = ("192.0.2.1", "192.0.2.2")


class Stage(Closable):
    """The namespaces `lan`, `router` and `wan`, wired; gone on `close`."""

    def __init__(self) -> None:
        self._network = Network()
        self.lan = self._network.lan
        self.router = self._network.router
        self.wan = self._network.wan
        try:
            self.lan.run("ip", "route", "add", "local", CROWD, "dev", "lo")
            self.router.run("ip", "route", "add", CROWD, "via", PHONE_1)
            for address in EXTERNAL_ADDRESSES[1:]:
                self._network.add_address(self.router, EXTERNAL_INTERFACE, address)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Removes the namespaces."""
        self._network.close()


class Wire(Closable):
    """Two namespaces `lan` and `wan` with a cable between them; gone on `close`."""

    pids = ()

    def __init__(self) -> None:
        self.lan = Namespace("lan")
        self.wan = Namespace("wan")
        near, far = WIRE
        try:
            self.lan.run("ip", "route", "add", "local", CROWD, "dev", "lo")
            link = f"link add eth0 type veth peer name eth0 netns {self.wan.name}"
            self.lan.run("ip", *link.split())
            for namespace, address in ((self.lan, near), (self.wan, far)):
                namespace.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
                namespace.run("ip", "link", "set", "eth0", "up")
            self.wan.run("ip", "route", "add", CROWD, "via", near)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Removes the namespaces."""
        self.lan.close()
        self.wan.close()
