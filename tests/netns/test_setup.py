"""What `sipnat setup` proposes on routers of every kind, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from alg.io.queue import PacketQueue
from tests.lab.gateway import Gateway
from tests.lab.network import LAN_ROUTED6, SERVER, Network
from tests.lab.setup import INTERFACES, Setup, add_link
from tests.netns.firewalls import DOCKER, FIREWALLD, FW4

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

STRICT = """
table inet filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan0" accept
    }
}
"""


def test_docker_is_let_through_and_its_links_are_nobodys_site(
    network: Network, setup: Setup
) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    for number, name in enumerate(("docker0", "br-0123456789ab", "docker_gwbridge")):
        add_link(network, name, f"172.{17 + number}.0.1/16")
    keys, said = setup.proposed()
    assert keys == INTERFACES | {"install_accept": '"auto"  # lets calls through Docker'}
    assert "docker0 172.17.0.1/16 left out: Docker" in said
    assert "firewalls: Docker" in said
    assert setup.proposed("--internal", "docker0")[0]["internal"].startswith('["docker0"]')


def test_beside_docker_rules_of_ones_own_are_left_to_their_owner(
    network: Network, setup: Setup
) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    network.router.run("nft", "-f", "-", text=STRICT)
    keys, said = setup.proposed()
    assert keys["install_accept"] == '"auto"  # lets calls through Docker'
    assert "firewalls: Docker, nftables (inet filter) IPv6" in said
    assert "insert rule inet filter forward" in said
    assert "DOCKER-USER" not in said


def test_a_bridge_and_a_vlan_of_the_site_are_internal(network: Network, setup: Setup) -> None:
    add_link(network, "br-lan", "192.168.1.1/24")
    keys, _ = setup.proposed()
    assert keys["internal"] == '["lan0", "br-lan"]  # 10.0.0.0/24, 192.168.1.0/24'


def test_a_vpn_is_named_and_not_taken(network: Network, setup: Setup) -> None:
    add_link(network, "tun0", "10.8.0.1/24", "tun")
    keys, said = setup.proposed()
    assert keys == INTERFACES
    assert "tun0 10.8.0.1/24 left out: VPN" in said
    keys, _ = setup.proposed("--internal", "lan0", "--internal", "tun0")
    assert keys["internal"] == '["lan0", "tun0"]  # 10.0.0.0/24, 10.8.0.0/24'


def test_networks_beyond_ipsec_are_reached_without_nat(network: Network, setup: Setup) -> None:
    for source, beyond in (("10.0.0.0/24", "10.9.0.0/16"), ("172.30.0.0/16", "10.10.0.0/16")):
        where = ("src", source, "dst", beyond, "dir", "out")
        tunnel = ("tmpl", "src", "203.0.113.1", "dst", SERVER, "proto", "esp", "mode", "tunnel")
        network.router.run("ip", "xfrm", "policy", "add", *where, *tunnel)
    passing = ("src", "10.0.0.0/24", "dst", "10.11.0.0/16", "dir", "out")
    network.router.run("ip", "xfrm", "policy", "add", *passing)
    keys, _ = setup.proposed()
    assert keys["routed"] == '["10.9.0.0/16"]  # 10.9.0.0/16 is reached by IPsec, without NAT'
    setup.write('internal = ["lan0"]\nexternal = "wan0"\nrouted = ["10.0.0.0/8"]\n')
    assert setup.proposed()[0] == {}
    setup.write('internal = ["lan0"]\nexternal = "wan0"\nrouted = ["192.168.0.0/16"]\n')
    keys, said = setup.proposed()
    assert keys == {}
    assert "10.9.0.0/16 is reached by IPsec, without NAT; the file's own routed stays" in said


def test_another_uplink_needs_a_sipnat_of_its_own(network: Network, setup: Setup) -> None:
    network.add_uplink()
    network.router.run("ip", "route", "add", "default", "via", "192.0.2.10", "metric", "50")
    keys, said = setup.proposed()
    assert keys == INTERFACES
    assert "wan1 192.0.2.1/24 left out: has a default route too" in said
    setup.path = setup.path.with_name("sipnat1.toml")
    assert f"sipnat setup --config {setup.path} --external wan1" in said
    keys, said = setup.proposed("--external", "wan1")
    assert keys == {
        "internal": INTERFACES["internal"],
        "external": '"wan1"  # has a default route too',
        "uplink": "1  # one of several uplinks",
    }
    assert "takes it for" not in said, "the first uplink has a sipnat already"


def test_each_further_uplink_is_given_a_file_of_its_own(network: Network, setup: Setup) -> None:
    for metric, (name, address) in enumerate((("wan1", "192.0.2.1"), ("wan2", "198.51.100.1")), 5):
        add_link(network, name, f"{address}/24")
        way = ("default", "via", f"{address}0", "metric", str(metric))
        network.router.run("ip", "route", "add", *way)
    said = setup.proposed()[1]
    for number in (1, 2):
        file = setup.path.with_name(f"sipnat{number}.toml")
        assert f"sipnat setup --config {file} --external wan{number}" in said


def test_both_hops_of_a_balanced_default_route_are_uplinks(network: Network, setup: Setup) -> None:
    network.add_uplink()
    hops = ("nexthop", "via", SERVER, "nexthop", "via", "192.0.2.10")
    network.router.run("ip", "route", "replace", "default", *hops)
    assert "wan1 is an uplink too" in setup.proposed()[1]


def test_a_default_route_of_policy_routing_counts_behind_the_main_one(
    network: Network, setup: Setup
) -> None:
    network.add_uplink()
    network.router.run("ip", "route", "add", "default", "via", "192.0.2.10", "table", "100")
    assert setup.proposed()[0] == INTERFACES
    network.router.run("ip", "route", "delete", "default")
    assert setup.proposed()[0]["external"] == '"wan1"  # the default route leaves by it'


def test_a_lease_and_further_addresses_are_seen(network: Network, setup: Setup) -> None:
    run = network.router.run
    lifetime = ("valid_lft", "3600", "preferred_lft", "3600")
    run("ip", "address", "change", "203.0.113.1/24", "dev", "wan0", *lifetime)
    run("ip", "address", "add", "203.0.113.5/24", "dev", "wan0")
    _, said = setup.proposed()
    assert "wan0 203.0.113.1/24 (DHCP), 203.0.113.5/24 external" in said
    assert "wan0 has 2 addresses, and 203.0.113.1 stands for the phones" in said


def test_ipv6_is_told_as_it_will_be() -> None:
    with Network(lan6=LAN_ROUTED6) as network, Setup(network.router) as setup:
        network.router.run("ip", "route", "add", "default", "via", SERVER)
        keys, said = setup.proposed()
        assert keys == INTERFACES
        assert "IPv6: pinhole" in said


def test_a_nat_above_is_told(network: Network, setup: Setup) -> None:
    network.router.run("ip", "address", "add", "192.168.178.2/24", "dev", "wan0")
    network.router.run("ip", "address", "delete", "203.0.113.1/24", "dev", "wan0")
    network.router.run("ip", "route", "replace", "default", "via", "192.168.178.1")
    keys, said = setup.proposed()
    assert keys == INTERFACES
    assert "192.168.178.2 is no address of the Internet" in said
    setup.write('external_address = "203.0.113.9"\n')
    _, said = setup.proposed()
    assert "another NAT is above: messages name 203.0.113.9, this router is 192.168" in said


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (STRICT, "nftables (inet filter)"),
        ("iptables -P FORWARD DROP", "iptables"),
    ],
)
def test_a_firewall_of_ones_own_is_named_with_what_must_be_done(
    network: Network, setup: Setup, rules: str, name: str
) -> None:
    if rules.startswith("iptables"):
        network.router.run(*rules.split())
    else:
        network.router.run("nft", "-f", "-", text=rules)
    keys, said = setup.proposed()
    assert keys == INTERFACES
    assert f"firewalls: {name} IPv6" in said
    assert "error forward-policy:" in said
    assert "gone after a reboot" in said
    printed = [line.strip() for line in setup.run().stdout.splitlines()]
    (command,) = (line[2:] for line in printed if line.startswith(("# nft", "# iptables")))
    network.router.run("sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; {command}")
    assert "forward-policy" not in setup.run().stdout


@pytest.mark.parametrize(
    ("rules", "name"), [(FW4, "OpenWrt fw4"), (FIREWALLD, "firewalld")], ids=["fw4", "firewalld"]
)
def test_a_firewall_that_sipnat_knows_is_let_through(
    network: Network, setup: Setup, rules: str, name: str
) -> None:
    network.router.run("nft", "-f", "-", text=rules)
    keys, said = setup.proposed()
    assert keys == INTERFACES | {"install_accept": f'"auto"  # lets calls through {name}'}
    assert "error" not in said


def test_real_ufw_is_let_through(network: Network, setup: Setup, ufw: Callable[..., str]) -> None:
    ufw("--force", "enable")
    keys, said = setup.proposed()
    assert keys == INTERFACES | {"install_accept": '"auto"  # lets calls through ufw'}
    assert "firewalls: ufw IPv6" in said


def test_A79_the_kernels_helper_is_named_with_its_cure(network: Network, setup: Setup) -> None:
    rule = "-A PREROUTING -p udp -m udp --dport 5060 -j CT --helper sip"
    network.router.run("iptables", "-t", "raw", *rule.split())
    done = setup.run("--yes")
    assert done.returncode == 0
    assert "sip-helper" in done.stdout
    assert f"# iptables -t raw {rule.replace('-A', '-D')}\n" in done.stdout


def test_what_other_programs_have_is_left_to_them(network: Network, setup: Setup) -> None:
    with (
        closing(network.router.call(lambda: PacketQueue(5060, lambda raw, *_: raw, True, 0))),
        network.router.udp_socket("0.0.0.0", 5351),
    ):
        keys, _ = setup.proposed()
    assert keys["queue"].startswith("5061  # another program has queue 5060")
    assert keys["pcp"].startswith("false  # ") and "has udp port 5351" in keys["pcp"]


def test_a_pbx_on_the_router_keeps_the_ports_of_its_media(
    network: Network, setup: Setup, tmp_path: Path
) -> None:
    program = tmp_path / "asterisk"
    program.symlink_to(sys.executable)
    script = (
        "import socket; udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "udp.bind(('0.0.0.0', 5060)); print('bound', flush=True); input()"
    )
    with subprocess.Popen(
        network.router.command(str(program), "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as pbx:
        assert pbx.stdin and pbx.stdout
        pbx.stdout.readline()
        keys, said = setup.proposed()
        pbx.stdin.close()
    low, high = (int(each) for each in keys["ports"].split('"')[1].split("-"))
    assert high - low == 8191
    assert high < 10000 or low > 20000
    assert "asterisk has udp port 5060 of this router" in said


def test_a_gateway_that_runs_is_to_be_started_again(network: Network, setup: Setup) -> None:
    with Gateway(network.router):
        done = setup.run("--yes")
        assert f"next: stop it, then sipnat run --config {setup.path}\n" in done.stdout
        assert "next:" not in setup.run().stdout
