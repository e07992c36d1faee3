"""The lab's wiring: phones, a router and the internet, one namespace each.

    phones 10.0.0.20, .21    10.0.0.1 router 203.0.113.1     server 203.0.113.10, remotes .11, .12
           [lan] eth0 ------------- lan0 [router] wan0 ------------- eth0 [wan]
                                                                 stranger 198.51.100.66

The router masquerades by a table of its own, as a router would before sipnat is installed on it.
With `ipv6` everybody but the stranger has an IPv6 address too, ending as the IPv4 one does:
2001:db8:1::20 (or, for a site that is not routed, fd00:1::20) and 2001:db8:2::10.
"""

from __future__ import annotations

from contextlib import suppress

from pyroute2 import IPRoute

from tests.lab.closable import Closable
from tests.lab.namespace import Namespace, remove_stale

LAN_ROUTER = "10.0.0.1"
PHONE_1 = "10.0.0.20"
PHONE_2 = "10.0.0.21"
EXTERNAL = "203.0.113.1"
SERVER = "203.0.113.10"
REMOTE_1 = "203.0.113.11"
REMOTE_2 = "203.0.113.12"
STRANGER = "198.51.100.66"
STRANGERS = "198.51.100.0/24"
INTERNAL_INTERFACE = "lan0"
EXTERNAL_INTERFACE = "wan0"
SECOND_INTERFACE = "wan1"
SECOND_EXTERNAL = "192.0.2.1"
SECOND_SERVER = "192.0.2.10"
LAN_ROUTED6 = "2001:db8:1::"
LAN_UNIQUE_LOCAL6 = "fd00:1::"
EXTERNAL6 = "2001:db8:2::1"
SERVER6 = "2001:db8:2::10"
REMOTE6_1 = "2001:db8:2::11"
REMOTE6_2 = "2001:db8:2::12"
PROBE_INTERVAL = 0.02
PROBES = 250

MASQUERADE = f"""
table ip home_router {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{EXTERNAL_INTERFACE}" masquerade
    }}
}}
"""

STATEFUL_FIREWALL6 = f"""
table ip6 home_firewall {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "{INTERNAL_INTERFACE}" accept
        meta mark & 0x02000000 != 0 accept
    }}
}}
"""
"""Out is free, in is by sipnat's mark (of uplink 0)."""


class Network(Closable):
    """Three namespaces, wired; `is_masqueraded=False` routes plainly instead (the ceiling)."""

    def __init__(self, *, is_masqueraded: bool = True, lan6: str = "") -> None:
        """Takes the IPv6 network of the phones: LAN_ROUTED6, LAN_UNIQUE_LOCAL6, or none."""
        remove_stale()
        self._namespaces: list[Namespace] = []
        try:
            self.router = self._add("router")
            self.lan = self._add("lan")
            self.wan = self._add("wan")
            self._wire_internal()
            self._wire_external()
            self.router.set_sysctl("net.ipv4.ip_forward", "1")
            if is_masqueraded:
                self.router.run("nft", "-f", "-", text=MASQUERADE)
            else:
                add_route(self.wan, "10.0.0.0/24", EXTERNAL)
            if lan6:
                self._wire6(lan6)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Removes the namespaces; the links go with them."""
        for namespace in self._namespaces:
            namespace.close()

    def ruleset(self) -> str:
        """Returns the router's whole nft ruleset."""
        return self.router.run("nft", "list", "ruleset")

    def expire_flows_after(self, seconds: int) -> None:
        """Shortens what conntrack grants to UDP flows, so that a test can see them end."""
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            self.router.set_sysctl(f"net.netfilter.{name}", str(seconds))

    def add_address(self, namespace: Namespace, interface: str, address: str) -> None:
        """Gives an interface one more address."""
        namespace.run("ip", "address", "add", f"{address}/24", "dev", interface)

    def replace_external(self, address: str) -> None:
        """Does what a DHCP client does with a new lease: one address comes, the other goes."""
        self.router.set_sysctl(f"net.ipv4.conf.{EXTERNAL_INTERFACE}.promote_secondaries", "1")
        self.add_address(self.router, EXTERNAL_INTERFACE, address)
        self.router.run("ip", "address", "delete", f"{EXTERNAL}/24", "dev", EXTERNAL_INTERFACE)

    def blink_external(self) -> None:
        """Takes the external interface down and up again, as a pulled cable does."""
        for state in ("down", "up"):
            self.router.run("ip", "link", "set", EXTERNAL_INTERFACE, state)
        self._route_external()
        _wait_until_packets_pass(self.wan, SERVER, self.router, EXTERNAL)

    def remake_external(self) -> None:
        """Deletes the external interface and makes it anew, as a modem does that is plugged in."""
        self.router.run("ip", "link", "delete", EXTERNAL_INTERFACE)
        self._wire_external()

    def remake_internal(self) -> None:
        """Deletes the internal interface and makes it anew, as a restart of the network does."""
        self.router.run("ip", "link", "delete", INTERNAL_INTERFACE)
        self._wire_internal()

    def add_uplink(self) -> None:
        """Gives the router a second way out, from 192.0.2.1 on `wan1` to 192.0.2.10."""
        self._wire(SECOND_INTERFACE, SECOND_EXTERNAL, self.wan, (SECOND_SERVER,), "eth1")
        self.router.run("nft", "-f", "-", text=MASQUERADE.replace("wan0", SECOND_INTERFACE))

    def lose_external(self) -> None:
        """Takes the first uplink down, and has the second one lead to what was behind it."""
        self.router.run("ip", "link", "set", EXTERNAL_INTERFACE, "down")
        add_route(self.router, STRANGERS, SECOND_SERVER)

    def _wire6(self, lan6: str) -> None:
        """Adds IPv6; what is outside knows the way to the phones only where they are routed."""
        self.router.set_sysctl("net.ipv6.conf.all.forwarding", "1")
        for namespace, interface, addresses in (
            (self.router, INTERNAL_INTERFACE, (f"{lan6}1",)),
            (self.lan, "eth0", (f"{lan6}20", f"{lan6}21")),
            (self.router, EXTERNAL_INTERFACE, (EXTERNAL6,)),
            (self.wan, "eth0", (SERVER6, REMOTE6_1, REMOTE6_2)),
        ):
            for address in addresses:
                where = f"{address}/64 dev {interface} nodad"
                namespace.run("ip", "-6", "address", "add", *where.split())
        self.lan.run("ip", "-6", "route", "add", "default", "via", f"{lan6}1")
        # A neighbour that is not resolved yet takes a second, and the packets of that second.
        for phone in (f"{lan6}20", f"{lan6}21"):
            _wait_until_packets_pass(self.router, f"{lan6}1", self.lan, phone)
        for remote in (SERVER6, REMOTE6_1, REMOTE6_2):
            _wait_until_packets_pass(self.router, EXTERNAL6, self.wan, remote)
        if lan6 == LAN_ROUTED6:
            self.wan.run("ip", "-6", "route", "add", f"{lan6}/64", "via", EXTERNAL6)

    def _wire_internal(self) -> None:
        self._wire(INTERNAL_INTERFACE, LAN_ROUTER, self.lan, (PHONE_1, PHONE_2))
        add_route(self.lan, "default", LAN_ROUTER)

    def _wire_external(self) -> None:
        far_addresses = (SERVER, REMOTE_1, REMOTE_2, STRANGER)
        self._wire(EXTERNAL_INTERFACE, EXTERNAL, self.wan, far_addresses)
        self._route_external()

    def _route_external(self) -> None:
        add_route(self.router, STRANGERS, SERVER)

    def _add(self, role: str) -> Namespace:
        namespace = Namespace(role)
        self._namespaces.append(namespace)
        return namespace

    def _wire(
        self,
        interface: str,
        address: str,
        far: Namespace,
        far_addresses: tuple[str, ...],
        far_interface: str = "eth0",
        *,
        near: Namespace | None = None,
    ) -> None:
        near = near or self.router
        near.edit_links(
            lambda links: links.link(
                "add",
                ifname=interface,
                kind="veth",
                peer={"ifname": far_interface, "net_ns_fd": far.name},
            )
        )
        _bring_up(near, interface, (address,))
        _bring_up(far, far_interface, far_addresses)
        _wait_until_packets_pass(far, far_addresses[0], near, address)


def _bring_up(namespace: Namespace, interface: str, addresses: tuple[str, ...]) -> None:
    def edit(links: IPRoute) -> None:
        index = links.link_lookup(ifname=interface)[0]
        for address in addresses:
            links.addr("add", index=index, address=address, prefixlen=24)
        links.link("set", index=index, state="up")

    namespace.edit_links(edit)


def _wait_until_packets_pass(
    sender: Namespace, sender_address: str, receiver: Namespace, receiver_address: str
) -> None:
    """Sends until something arrives: a new link drops packets for a second or two after "up".

    It is done before there are rules, so it leaves no trace in conntrack.
    """
    probe, target = sender.udp_socket(sender_address), receiver.udp_socket(receiver_address)
    with probe, target:
        target.settimeout(PROBE_INTERVAL)
        for _ in range(PROBES):
            probe.sendto(b"probe", target.getsockname())
            with suppress(TimeoutError):
                target.recv(16)
                return
    raise RuntimeError(f"nothing passes from {sender.name} to {receiver.name}")


def add_route(namespace: Namespace, destination: str, gateway: str) -> None:
    namespace.edit_links(lambda links: links.route("add", dst=destination, gateway=gateway))
