"""The doctor finds what breaks calls, and the very command that it prints cures it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab.doctor import Doctor, check_cured
from tests.lab.gateway import Gateway
from tests.lab.network import (
    EXTERNAL,
    LAN_ROUTED6,
    LAN_ROUTER,
    PHONE_1,
    SERVER,
    Network,
)
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.firewalls import DOCKER, FW4

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
HELPER = """
table inet admin {
    ct helper voip {
        type "sip" protocol udp
    }
    chain raw {
        type filter hook prerouting priority raw; policy accept;
        iifname "lan0" udp dport 5060 ct helper set "voip" accept
    }
}
"""
STRICT = """
table inet admin {
    set blocked {
        type ipv4_addr
        flags interval
        elements = { 192.0.2.0/24 }
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        ip saddr @blocked drop
        iifname "lan0" oifname "wan0" goto outgoing
    }
    chain outgoing {
        meta l4proto { tcp, udp } th dport { 53, 80, 443 } accept
        udp dport 5060-5061 counter accept
    }
}
"""
CLOSED = """
table inet admin {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname "lo" accept
        icmp type echo-request accept
    }
}
"""
ARRIVING = """
table inet admin {
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        iifname "wan0" udp dport != 53 drop
    }
}
"""
UNTRACKED = """
table ip admin {
    chain raw {
        type filter hook prerouting priority raw; policy accept;
        ip daddr %s udp dport 5060 notrack
        udp dport 5080 notrack
    }
}
"""


def load(network: Network, rules: str) -> None:
    network.router.run("nft", "-f", "-", text=rules)


def iptables(network: Network, rule: str, program: str = "iptables") -> None:
    network.router.run(program, *rule.split())


def test_nothing_is_wrong_with_a_plain_router_and_nothing_is_changed(
    network: Network, doctor: Doctor
) -> None:
    before = network.ruleset(), network.router.run("iptables-save"), sysctls(network)
    found = doctor.examine()
    # The clock is the machine's own, and this one's may be wrong.
    assert {row["check"] for row in found if row["level"] != "ok"} <= {"clock"}
    assert len(found) >= 16
    assert all(f"`{row['check']}`" in README for row in found)
    assert before == (network.ruleset(), network.router.run("iptables-save"), sysctls(network))


def sysctls(network: Network) -> list[str]:
    lines = network.router.run("sysctl", "-a", "-r", r"^net\.").splitlines()
    return [line for line in lines if "count" not in line and "netdev_rss_key" not in line]


def test_A79_a_helper_by_iptables(network: Network, doctor: Doctor) -> None:
    iptables(network, "-t raw -A PREROUTING -p udp --dport 5060 -j CT --helper sip")
    check_cured(doctor, "sip-helper", "iptables raw PREROUTING")


def test_A79_a_helper_by_legacy_iptables(network: Network, doctor: Doctor) -> None:
    iptables(network, "-t raw -A OUTPUT -p udp --dport 5060 -j CT --helper sip", "iptables-legacy")
    check_cured(doctor, "sip-helper", "iptables-legacy raw OUTPUT")


def test_A79_a_helper_by_nft_under_a_name_of_its_own(network: Network, doctor: Doctor) -> None:
    load(network, HELPER)
    check_cured(doctor, "sip-helper", "nft inet admin raw")


def test_other_helpers_are_left_alone(network: Network, doctor: Doctor) -> None:
    iptables(network, "-t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp")
    assert doctor.look("sip-helper") == []


def test_what_keeps_sip_from_conntrack(network: Network, doctor: Doctor) -> None:
    load(network, UNTRACKED % EXTERNAL)
    check_cured(doctor, "notrack", "incoming SIP")
    iptables(network, "-t raw -A PREROUTING -i lan0 -p udp -j CT --notrack")
    check_cured(doctor, "notrack", "outgoing SIP")


def test_A75_a_strict_firewall_of_nft(network: Network, doctor: Doctor) -> None:
    load(network, STRICT)
    (found,) = doctor.look("forward-policy")
    assert "incoming SIP, outgoing media, incoming media" in found["text"]
    assert "outgoing SIP" not in found["text"]
    check_cured(doctor, "forward-policy", "its policy")


@pytest.mark.parametrize(
    "rules",
    [
        ("-P FORWARD DROP", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ("-A FORWARD -i wan0 ! -o wan1 -m state --state NEW -j REJECT",),
        ("-N checks", "-A FORWARD -j checks", "-A checks -i wan+ -p udp -m multiport --dports "
         "1:6000 -j DROP"),
    ],
    ids=["policy", "reject", "a chain further"],
)  # fmt: skip
def test_A75_a_strict_firewall_of_iptables(
    network: Network, doctor: Doctor, rules: tuple[str, ...]
) -> None:
    for rule in rules:
        iptables(network, rule)
    check_cured(doctor, "forward-policy", "incoming media")


def test_A75_a_drop_in_mangle_is_cured_without_hiding_sip_from_sipnat(
    network: Network, doctor: Doctor
) -> None:
    iptables(network, "-t mangle -A FORWARD -d 10.0.0.0/24 -m conntrack --ctstate DNAT -j DROP")
    found = doctor.look("forward-policy")
    assert "incoming SIP, incoming media" in found[0]["text"]
    doctor.cure(found + doctor.look("queue-rule"))
    assert doctor.look("forward-policy") == doctor.look("queue-rule") == []
    with Gateway(network.router), Site(network) as site:
        site.register(site.phone_1)
        _, answered = site.call_in(site.phone_1)
        assert site.talk(site.phone_1, answered, SERVER_MEDIA_1).flows_on()


@pytest.mark.parametrize("program", ["iptables", "nft"])
def test_A75_what_is_dropped_as_soon_as_it_comes(
    network: Network, doctor: Doctor, program: str
) -> None:
    if program == "iptables":
        iptables(network, "-t raw -A PREROUTING -i wan0 -p udp -j DROP")
    else:
        load(network, ARRIVING)
    check_cured(doctor, "arrival-policy", "drops incoming SIP, incoming media")
    with Gateway(network.router), Site(network) as site:
        site.register(site.phone_1)
        _, answered = site.call_in(site.phone_1)
        assert site.talk(site.phone_1, answered, SERVER_MEDIA_1).flows_on()


def test_A75_docker_and_openwrt_have_places_for_the_rule(network: Network, doctor: Doctor) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    load(network, FW4)
    found = doctor.look("forward-policy")
    commands = [command for row in found for command in row["commands"]]
    assert any("-I DOCKER-USER" in command for command in commands)
    assert all(row["configuration"] == ['install_accept = "auto"'] for row in found)
    doctor.cure(found)
    assert doctor.look("forward-policy") == []


def test_what_nobody_can_know_is_a_warning(network: Network, doctor: Doctor) -> None:
    iptables(network, "-P FORWARD DROP")
    iptables(network, "-A FORWARD -m statistic --mode random --probability 0.9 -j ACCEPT")
    check_cured(doctor, "forward-policy", "may drop", "warning")


def test_what_is_about_others_is_passed_over(network: Network, doctor: Doctor) -> None:
    load(network, "table inet admin { chain forward {\n"
         "type filter hook forward priority filter; policy accept\n"
         'oifname "docker0" drop\n'
         "ip saddr 192.0.2.0/24 drop\n"
         "udp dport 1000-2000 drop\n"
         "ct state invalid drop\n"
         "meta l4proto icmp drop\n"
         "ip6 daddr fe80::/10 drop\n"
         "}\n}")  # fmt: skip
    assert doctor.look("forward-policy") == []


def test_connections_for_the_relay_and_requests_pass_a_closed_input(
    network: Network, doctor: Doctor
) -> None:
    load(network, CLOSED)
    (requests,) = doctor.look("input-requests")
    assert requests["level"] == "warning" and "5351 from lan0" in requests["text"]
    (relayed,) = doctor.look("input-policy")
    assert "SIP over TCP" in relayed["text"] and relayed["commands"] == requests["commands"]
    doctor.cure([relayed])
    assert doctor.look("input-policy") == doctor.look("input-requests") == []


def test_requests_of_mappings_come_in_by_the_rule_that_the_doctor_prints(
    network: Network, doctor: Doctor
) -> None:
    asking = ("natpmpc", "-g", LAN_ROUTER, "-a", "7000", "4000", "udp", "3600")
    load(network, CLOSED)
    with Gateway(network.router, tcp=False):
        with pytest.raises(subprocess.TimeoutExpired):
            network.lan.run(*asking, timeout=2.0)
        doctor.cure(doctor.look("input-requests"))
        assert "Mapped public port 7000" in network.lan.run(*asking)


def test_what_is_asked_of_another_machine_is_not_let_through_by_the_mark(
    network: Network, doctor: Doctor
) -> None:
    load(network, STRICT)
    doctor.cure(doctor.look("forward-policy"))
    with (
        Gateway(network.router),
        network.lan.udp_socket(PHONE_1, 40000) as asking,
        network.wan.udp_socket(SERVER, 5351) as asked,
    ):
        asking.sendto(b"elsewhere", asked.getsockname())
        asked.settimeout(1.0)
        with pytest.raises(TimeoutError):
            asked.recv(16)


def test_A75_ipv6_has_firewalls_too() -> None:
    with Network(lan6=LAN_ROUTED6) as network, Doctor(network.router) as doctor:
        iptables(network, "-P FORWARD DROP", "ip6tables")
        iptables(network, "-t mangle -A FORWARD -p udp -j ACCEPT", "ip6tables")
        check_cured(doctor, "forward-policy", "ip6tables filter FORWARD")
        check_cured(doctor, "queue-rule", "ip6tables mangle FORWARD")
        network.router.set_sysctl("net.ipv6.conf.all.forwarding", "0")
        doctor.configuration += ['mode6 = "pinhole"']
        check_cured(doctor, "forwarding", "IPv6")


@pytest.mark.parametrize(
    "rule",
    ["-i lan0 -j ACCEPT", "-p udp -j NFQUEUE --queue-num 7 --queue-bypass",
     "-i lan0 -j MARK --set-mark 1"],
    ids=["accept", "another queue", "another mark"],
)  # fmt: skip
def test_A75_a_rule_of_mangle_before_sipnats_own_hides_sip_until_it_is_cured(
    network: Network, doctor: Doctor, rule: str
) -> None:
    iptables(network, f"-t mangle -A FORWARD {rule}")
    with Gateway(network.router) as gateway, Site(network) as site:
        site.phone_1.register()
        seen = site.server.expect("REGISTER")
        assert PHONE_1.encode() in seen.raw
        assert not gateway.show_mappings()
        check_cured(doctor, "queue-rule", "outgoing SIP")
        site.phone_2.register()
        assert b"sip:phone2@10.0.0.21" not in site.server.expect("REGISTER").raw
        assert gateway.show_mappings("sip")
        gateway.stop()
    saved = network.router.run("iptables-save", "-t", "mangle")
    assert "sipnat" not in saved, "it takes its rule away wherever that is"


def test_A75_calls_come_in_by_the_rule_that_the_doctor_prints(
    network: Network, doctor: Doctor
) -> None:
    load(network, STRICT)
    with Gateway(network.router), Site(network) as site:
        doctor.cure(doctor.look("forward-policy"))
        site.register(site.phone_1)
        _, answered = site.call_in(site.phone_1)
        assert site.talk(site.phone_1, answered, SERVER_MEDIA_1).flows_on()
