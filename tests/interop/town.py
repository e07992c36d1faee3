"""Where the phones live: each machine in a namespace of its own, on two switches and a router.

    alice 10.0.0.20 ---+                                              +--- carol 203.0.113.11
                     [lan] --- lan0 [router] wan0 203.0.113.1 --- [wan]
    bob   10.0.0.21 ---+        10.0.0.1                              +--- server 203.0.113.10

A phone of the lab's own is a socket; a real one takes what port it finds free, and believes each
address of its machine to be one of its own: so it has a machine for itself. The switches have a
namespace of their own, where no rule of a router sees what they carry. A STUN server lives with
`server`, at .12 and .13.
"""

from __future__ import annotations

from tests.lab.closable import Closable
from tests.lab.namespace import Namespace
from tests.lab.network import EXTERNAL, LAN_ROUTER, MASQUERADE, REMOTE_1, REMOTE_2

SERVER = "203.0.113.10"
STUN = REMOTE_2
SECOND_STUN = "203.0.113.13"
PHONES = {"alice": "10.0.0.20", "bob": "10.0.0.21", "carol": REMOTE_1}
INTERFACE = "eth0"

FIREWALL = """
table ip home_firewall {
    chain input {
        type filter hook input priority filter; policy accept;
        iifname "wan0" meta mark & 0x04000000 == 0 ct state new drop
    }
}
"""
"""What every router has: nobody outside has business with the router itself.

But sipnat's relay of SIP over TCP has, by its mark. Without the drop, a packet that comes before
the phone's own takes the port that masquerade would have kept: who trusts in STUN hears nothing.
"""


class Town(Closable):
    """The machines, wired; `phones` are those of PHONES by name.

    With `is_masqueraded=False` the router only routes: what does not work then, no gateway mends.
    """

    def __init__(self, *, is_masqueraded: bool = True) -> None:
        self._namespaces: list[Namespace] = []
        try:
            self._switch = self._add("switch")
            self.router = self._add("router")
            self.server = self._add("server")
            self.phones = {name: self._add(name) for name in PHONES}
            for side in ("lan", "wan"):
                self._configure(self._switch, f"link add {side} type bridge", f"link set {side} up")
            self._plug("lan", self.router, "lan0", LAN_ROUTER)
            self._plug("wan", self.router, "wan0", EXTERNAL)
            self._plug("wan", self.server, INTERFACE, SERVER, STUN, SECOND_STUN)
            for name, phone in self.phones.items():
                is_inside = PHONES[name].startswith("10.")
                self._plug("lan" if is_inside else "wan", phone, INTERFACE, PHONES[name])
                # A phone without a default route takes itself to be without a network.
                gateway = LAN_ROUTER if is_inside else SERVER
                self._configure(phone, f"route add default via {gateway}")
            self.router.set_sysctl("net.ipv4.ip_forward", "1")
            if is_masqueraded:
                self.router.run("nft", "-f", "-", text=MASQUERADE + FIREWALL)
            else:
                for outside in (self.server, self.phones["carol"]):
                    self._configure(outside, f"route add 10.0.0.0/24 via {EXTERNAL}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Removes the machines."""
        for namespace in self._namespaces:
            namespace.close()

    def _add(self, role: str) -> Namespace:
        namespace = Namespace(role)
        self._namespaces.append(namespace)
        return namespace

    def _plug(self, side: str, machine: Namespace, interface: str, *addresses: str) -> None:
        """Joins an interface of a machine to a switch, and gives it its addresses."""
        port = machine.name.rpartition("-")[2] + side
        self._configure(
            self._switch,
            f"link add {port} type veth peer name {interface} netns {machine.name}",
            f"link set {port} master {side} up",
        )
        self._configure(
            machine,
            *(f"address add {address}/24 dev {interface}" for address in addresses),
            f"link set {interface} up",
        )

    def _configure(self, machine: Namespace, *commands: str) -> None:
        """Gives commands to ip(8)."""
        machine.run("ip", "-batch", "-", text="\n".join(commands))
