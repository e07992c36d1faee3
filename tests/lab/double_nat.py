"""The lab with one more NAT between the router and the internet, of each classic kind.

    [lan] ---- lan0 [router] wan0 -------- eth0 [upper] wan0 -------- eth0 [wan]
                     192.168.1.2     192.168.1.1      203.0.113.1        203.0.113.10 ...

Linux itself is port restricted, and symmetric if it is told to draw ports at random. To be a cone
it hands on what comes for any port: from anybody, or from those that this port has sent to. All but
the symmetric one keep port numbers, and each drops what is for itself, as home routers do.
"""

from __future__ import annotations

from tests.lab.namespace import Namespace
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    REMOTE_1,
    REMOTE_2,
    SERVER,
    STRANGER,
    STRANGERS,
    Network,
    add_route,
)

WIRE = "192.168.1.2"
OTHER_WIRE = "192.168.1.3"
UPPER = "192.168.1.1"
OTHER_PUBLIC = "203.0.113.2"

_INBOUND = {
    "full cone": "dnat to {wire}",
    "restricted cone": "th dport . ip saddr @contacted dnat to {wire}",
    "port restricted cone": "return",
    "symmetric": "return",
}
KINDS = tuple(_INBOUND)

_RULES = """
table ip upper
delete table ip upper
table ip upper {{
    set contacted {{
        type inet_service . ipv4_addr
        flags dynamic
        size 65536
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "wan0" ct state != established drop
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        iifname "wan0" fib daddr type local {inbound}
    }}
    chain forward {{
        type filter hook forward priority filter;
        oifname "wan0" update @contacted {{ th sport . ip daddr }}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "wan0" snat to {outbound}
    }}
}}
"""


class DoubleNat(Network):
    """A network whose router has a private address, behind `upper`."""

    upper: Namespace
    kind: str

    def __init__(self, kind: str = "full cone", *, public: str = EXTERNAL) -> None:
        super().__init__()
        self.public = EXTERNAL
        self.turn_into(kind)
        if public != EXTERNAL:
            self.wan.run("ip", "route", "add", f"{public}/32", "dev", "eth0")
            self.replace_public(public)

    def turn_into(self, kind: str, *, wire: str = WIRE) -> None:
        """Makes another kind of NAT of the upper one, which forgets its flows."""
        self.kind = kind
        inbound = _INBOUND[kind].format(wire=wire)
        outbound = f"{self.public} fully-random" if kind == "symmetric" else self.public
        self.upper.run("nft", "-f", "-", text=_RULES.format(inbound=inbound, outbound=outbound))
        self.upper.run("conntrack", "-F")

    def replace_public(self, address: str) -> None:
        """Gives the upper NAT another public address, as a provider does."""
        self.upper.run("ip", "address", "add", f"{address}/32", "dev", EXTERNAL_INTERFACE)
        self.public = address
        self.turn_into(self.kind)

    def replace_wire(self) -> None:
        """Gives the router another address on the wire, as the upper NAT's DHCP does."""
        for verb, address in (("add", OTHER_WIRE), ("delete", WIRE)):
            where = f"{address}/24 dev {EXTERNAL_INTERFACE}"
            self.router.run("ip", "address", verb, *where.split())
        self.router.run("ip", "route", "replace", "default", "via", UPPER)

    def _wire_external(self) -> None:
        self.upper = self._add("upper")
        self._wire(EXTERNAL_INTERFACE, WIRE, self.upper, (UPPER,))
        remotes = (SERVER, REMOTE_1, REMOTE_2, STRANGER)
        self._wire(EXTERNAL_INTERFACE, EXTERNAL, self.wan, remotes, near=self.upper)
        self.upper.set_sysctl("net.ipv4.ip_forward", "1")
        self.upper.set_sysctl(f"net.ipv4.conf.{EXTERNAL_INTERFACE}.promote_secondaries", "1")
        self.router.set_sysctl(f"net.ipv4.conf.{EXTERNAL_INTERFACE}.promote_secondaries", "1")
        add_route(self.router, "default", UPPER)
        add_route(self.upper, STRANGERS, SERVER)
