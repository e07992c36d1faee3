"""Firewalls that drop what they forward, as on routers: Docker's, OpenWrt's, real ufw."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.lab.network import INTERNAL_INTERFACE, Network

DOCKER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -s 192.0.2.66/32 -m comment --comment "by the admin" -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""
FW4 = f"""
table inet fw4 {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state vmap {{ established : accept, related : accept }} comment "!fw4: Flows"
        iifname "{INTERNAL_INTERFACE}" jump forward_lan comment "!fw4: Handle lan"
        jump handle_reject
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "lo" accept comment "!fw4: Accept traffic from loopback"
        ct state vmap {{ established : accept, related : accept }} comment "!fw4: Flows"
        jump handle_reject
    }}
    chain forward_lan {{
        tcp dport 443 accept comment "!fw4: Allow web"
    }}
    chain handle_reject {{
        meta l4proto tcp reject with tcp reset comment "!fw4: Reject TCP traffic"
        reject comment "!fw4: Reject any other traffic"
    }}
}}
"""
FIREWALLD = """
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        reject with icmpx admin-prohibited
    }
}
"""


def filter_rules(network: Network) -> str:
    """Returns the firewall as iptables-save prints it, without times and counts of packets."""
    saved = network.router.run("iptables-save", "-t", "filter")
    return re.sub(r"^#.*\n|\[\d+:\d+\]", "", saved, flags=re.MULTILINE)


def fw4(network: Network, table: str = "fw4") -> str:
    return network.router.run("nft", "list", "table", "inet", table)


def unpack_ufw(
    network: Network, package: Path, root: Path, *, has_ipv6: bool = False
) -> Callable[..., str]:
    """Returns the real ufw, unpacked to `root`, where all its files stay.

    It acts on the router's namespace and is told to leave sysctls alone.
    """
    subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
    settings, templates = root / "etc/ufw", root / "usr/share/ufw"
    for template in (*templates.glob("*.init"), *templates.glob("iptables/*")):
        shutil.copy(template, settings)
    (settings / "ufw.conf").write_text("ENABLED=no\nLOGLEVEL=off\n")
    defaults = root / "etc/default/ufw"
    text = re.sub(r"^(IPT_SYSCTL)=.*", r"\1=", defaults.read_text(), flags=re.MULTILINE)
    defaults.write_text(text if has_ipv6 else text.replace("IPV6=yes", "IPV6=no"))

    def run(*arguments: str) -> str:
        modules = f"PYTHONPATH={root}/usr/lib/python3/dist-packages"
        program = ("env", modules, "/usr/bin/python3", "-B", str(root / "usr/sbin/ufw"))
        where = (f"--rootdir={root}", f"--datadir={root}")
        return network.router.run(*program, *where, *arguments)

    return run
