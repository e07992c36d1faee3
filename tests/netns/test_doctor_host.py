"""The doctor on what is no firewall: sysctls, routes, ports, the machine; and how it is called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from alg.io.queue import PacketQueue
from tests.lab.doctor import OPTIONS, Doctor, check_cured
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.network import EXTERNAL, INTERNAL_INTERFACE, SERVER, Network

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]


def test_a_router_that_does_not_forward(network: Network, doctor: Doctor) -> None:
    network.router.set_sysctl("net.ipv4.ip_forward", "0")
    check_cured(doctor, "forwarding", "does not forward")


def test_A93_a_strict_reverse_path_filter_on_an_uplink_that_is_not_the_way_back(
    network: Network, doctor: Doctor
) -> None:
    network.add_uplink()
    network.router.run("ip", "route", "replace", "default", "via", "192.0.2.10")
    assert doctor.look("reverse-path") == []
    network.router.set_sysctl("net.ipv4.conf.all.rp_filter", "1")
    check_cured(doctor, "reverse-path", "rp_filter is strict")
    network.router.set_sysctl("net.ipv4.conf.wan0.rp_filter", "1")
    network.router.run("ip", "rule", "add", "from", EXTERNAL, "lookup", "77")
    network.router.run("ip", "route", "add", "default", "via", SERVER, "table", "77")
    assert doctor.look("reverse-path") == []


def test_a_router_without_a_way_to_the_internet(network: Network, doctor: Doctor) -> None:
    network.router.run("ip", "route", "delete", "default")
    (found,) = doctor.look("reverse-path")
    assert (found["level"], found["text"]) == ("warning", "there is no route to the Internet")
    doctor.configuration += [f'servers = ["{SERVER}/32"]']
    assert doctor.look("reverse-path") == []


def test_br_netfilter_under_a_bridge(network: Network) -> None:
    router = network.router
    router.run("ip", "link", "add", "br0", "type", "bridge")
    router.run("ip", "link", "set", INTERNAL_INTERFACE, "master", "br0")
    for family in ("iptables", "ip6tables"):
        router.set_sysctl(f"net.bridge.bridge-nf-call-{family}", "1")
    with Doctor(router, "--internal", "br0", "--external", "wan0") as doctor:
        check_cured(doctor, "bridge", "br_netfilter", "warning")


def test_ports_of_other_programs(network: Network, doctor: Doctor) -> None:
    with (
        network.router.udp_socket("0.0.0.0", 20000),
        network.router.udp_socket("0.0.0.0", 5351),
        network.router.tcp_socket("127.0.0.1", 15060) as other,
    ):
        network.router.call(lambda: other.listen())
        found = doctor.look("ports")
        texts = " ".join(row["text"] for row in found)
        assert all(port in texts for port in ("port 20000", "port 5351", "port 15060"))
        assert "has udp port 20000 within 16384-24575" in texts
        doctor.cure(found)
        assert doctor.configuration == [
            'ports = "5352-13543"',
            "relay_port = 15160",
            "pcp = false",
        ]
        assert doctor.look("ports") == []


def test_a_queue_of_another_program(network: Network, doctor: Doctor) -> None:
    assert doctor.look("queue") == []
    queue = network.router.call(lambda: PacketQueue(5060, lambda raw, *_: raw, True, 0))
    try:
        check_cured(doctor, "queue", "another program has queue 5060")
        assert doctor.configuration == ["queue = 5061"]
    finally:
        queue.close()


def test_A94_a_private_external_address(network: Network, doctor: Doctor) -> None:
    network.router.run("ip", "address", "add", "192.168.7.2/24", "dev", "wan0")
    network.router.run("ip", "address", "delete", f"{EXTERNAL}/24", "dev", "wan0")
    found = doctor.look("double-nat")
    assert "192.168.7.2 is no address of the Internet" in found[0]["text"]
    assert found[0]["configuration"] == ['stun_servers = ["stun.example.com:3478"]']
    doctor.configuration += [f'external_address = "{EXTERNAL}"']
    assert doctor.look("double-nat") == []


def test_the_conntrack_table_is_nearly_full(network: Network, tmp_path: Path) -> None:
    """The real numbers belong to the whole machine, so others are put in their place."""
    count, most = tmp_path / "count", tmp_path / "max"
    count.write_text("850\n")
    most.write_text("1000\n")
    proc = "/proc/sys/net/netfilter/nf_conntrack"
    doctor = " ".join((SIPNAT, "doctor", *OPTIONS))
    script = (
        f"mount --bind {count} {proc}_count && mount --bind {most} {proc}_max || exit 9\n"
        f"{doctor}\n"
        f"eval \"$({doctor} | sed -n 's/^ *# \\(sysctl.*conntrack.*\\)/\\1/p')\"\n"
        f"{doctor}\n"
    )
    done = subprocess.run(
        network.router.command("sh", "-c", script), capture_output=True, text=True, timeout=60
    )
    assert "warning  conntrack: 850 of 1000 flows" in done.stdout, done
    assert "ok       conntrack: 850 of 2000 flows" in done.stdout


def test_a_kernel_without_any_queue_is_told(network: Network) -> None:
    """What iptables is would be missing is stood in for by a program that fails."""
    script = (
        "mount --bind /bin/false /usr/sbin/xtables-nft-multi || exit 9\n"
        f"{SIPNAT} doctor {' '.join(OPTIONS)} --json"
    )
    done = subprocess.run(
        network.router.command("sh", "-c", script), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    native = "nft queue" in done.stdout
    assert native or "nothing can hand packets to sipnat" in done.stdout, done


def test_without_root_it_says_what_it_has_left_out(network: Network) -> None:
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    done = subprocess.run(
        network.router.command(*nobody, SIPNAT, "doctor", *OPTIONS),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "skipped  firewall:" in done.stdout and "sudo sipnat doctor" in done.stdout
    assert "ok       forwarding:" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "# " not in line)


def test_a_missing_interface_is_the_only_finding(network: Network) -> None:
    with Doctor(network.router, "--internal", "lan7", "--external", "wan0") as doctor:
        (found,) = doctor.examine()
        assert (found["check"], found["level"]) == ("interfaces", "error")
        assert found["text"] == "there is no interface lan7"


def test_a_running_gateway_tells_its_configuration(network: Network) -> None:
    def run(control: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            network.router.command(SIPNAT, "doctor", "--control", control),
            capture_output=True,
            text=True,
            timeout=60,
        )

    with Gateway(network.router, sip_ports=[5070], hep={}) as gateway:
        network.router.run(
            "iptables", *["-A", "FORWARD", "-p", "udp", "--dport", "5070", "-j", "DROP"]
        )
        done = run(gateway.control)
        assert done.returncode == 2, done
        assert "forward-policy: iptables filter FORWARD drops outgoing SIP" in done.stdout
        assert "ok       ports:" in done.stdout, "its own ports are no others'"
    done = run(gateway.control)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"sipnat: no sipnat is running: nobody answers at {gateway.control}; give --internal and "
        "--external, or --config\n"
    )
