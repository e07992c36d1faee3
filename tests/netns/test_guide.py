"""The deployment guide keeps its word: its commands set each firewall up, and take it back.

Each section is followed to the letter on a router with that firewall: before, the doctor complains;
behind its commands it does not, and calls, SIP over TCP and requests for mappings pass; after a
reload still so; and what its last part removes leaves the firewall as it was.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from alg.config_file import load_config
from nat_table.endpoint import Endpoint
from rules.settings import Settings
from tests.lab.agents import wait_until
from tests.lab.network import LAN_ROUTED6, LAN_ROUTER, PHONE_1, PHONE_2, SERVER, SERVER6, Network
from tests.lab.packages import fetch_packages
from tests.lab.sandbox import Sandbox, SandboxFailed
from tests.lab.site import Site
from tests.netns import guide
from tests.netns.firewalls import DOCKER
from tests.netns.guide import DEPLOY, blocks, commands, complaints, follow, running
from tests.netns.streams import connect

pytestmark = [pytest.mark.netns, pytest.mark.timeout(400)]

BASE = 'internal = ["lan0"]\nexternal = "wan0"\nupnp = true\n'
NOT_HERE = {
    "apt ": "tests/package installs and purges the package",
    "systemctl ": "tests/package has a machine with systemd",
    "sipnat setup": "asks for a terminal; has tests of its own",
    "docker ": "the Docker lab runs the image",
    "opkg ": "no OpenWrt here, as the guide says",
    "uci ": "no OpenWrt here, as the guide says",
}
FOLLOWED = (
    "See that it works", "Plain nftables", "ufw", "firewalld", "A host with Docker", "OpenWrt",
    "Several uplinks", "IPv6", "Remove it",
)  # fmt: skip
REMOVED = ("Plain nftables", "ufw", "firewalld", "A host with Docker", "OpenWrt", "Several uplinks")
GUIDE = (DEPLOY / "README.md").read_text()
DOCKER6 = "".join(line for line in DOCKER.splitlines(True) if "192.0.2" not in line)
FW4 = Path(__file__).with_name("fw4.nft")
UFW = """
for rules in before before6 after after6 user user6; do
    cp -n /usr/share/ufw/iptables/$rules.rules /etc/ufw/
done
cp -n /usr/share/ufw/*.init /usr/share/ufw/ufw.conf /etc/ufw/
sed -i 's/^IPT_SYSCTL=.*/IPT_SYSCTL=/' /etc/default/ufw
"""
# Who may speak on a bus of the sandbox, where nobody else is.
BUS = """<busconfig>
<type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
</policy></busconfig>
"""


@contextmanager
def furnished(network: Network, cache: pytest.Cache | None) -> Iterator[Sandbox]:
    """Yields the router of a network with files of its own, and what the package installs."""
    assert cache is not None
    network.router.run("ip", "route", "add", "default", "via", SERVER)
    try:
        sandbox = Sandbox(network.router, fetch_packages(cache, "ufw", "firewalld"))
    except SandboxFailed as failure:
        pytest.skip(f"no file system can be laid over this machine's: {failure}")
    with sandbox:
        guide.furnish(sandbox, BASE)
        yield sandbox


@pytest.fixture
def router(network: Network, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with furnished(network, request.config.cache) as router:
        yield router


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def check_calls(
    network: Network,
    transport: str = "udp",
    phones: tuple[str, str] = (PHONE_1, PHONE_2),
    server: str = SERVER,
) -> None:
    """Registers a phone, calls out and in, each with audio, and hangs up."""
    with Site(network, transport=transport, phones=phones, server=server) as site:
        phone, provider = site.phone_1, site.server
        site.register(phone)
        sent, arrived = site.call_out(phone)
        with site.talk(phone, arrived, site.server_media_1) as talk:
            assert talk.flows_on()
        site.hang_up(phone, provider, sent)
        sent, answered = site.call_in(phone)
        with site.talk(phone, answered, site.server_media_2) as talk:
            assert talk.flows_on()
        site.hang_up(provider, phone, sent)


def check_all_passes(network: Network) -> None:
    """Checks calls over UDP and TCP, and a request for a mapping."""
    check_calls(network)
    check_calls(network, "tcp")
    asked = network.lan.run("natpmpc", "-g", LAN_ROUTER, "-a", "7000", "4500", "udp", "3600")
    assert "Mapped public port 7000 protocol UDP to local port 4500" in asked


def listed(router: Sandbox) -> str:
    """Returns all tables but sipnat's own, without counts."""
    text = router.run("nft", "--stateless", "list", "ruleset")
    text = re.sub(r"^.*NFQUEUE.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^table inet sipnat \{.*?^\}\n", "", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(sorted(re.split(r"^(?=table )", text, flags=re.MULTILINE)))


def is_capturing(router: Sandbox) -> bool:
    """Tells whether SIP comes to sipnat: where nft has no queue, others may flush its rule."""
    return re.search(r"\bqueue\b|NFQUEUE", router.run("nft", "list", "ruleset")) is not None


def check_section(network: Network, router: Sandbox, log: Path, title: str, reload: str) -> None:
    """Follows a section, whose first block sets it up, and what it says to remove."""
    with running(router, log):
        before = listed(router)
        assert {row["check"] for row in complaints(router)} >= {"input-policy", "input-requests"}
        follow(router, blocks(title)[:1])
        assert wait_until(lambda: is_capturing(router), 20)
        check_all_passes(network)
        router.run("sh", "-ec", reload)
        assert complaints(router) == []
        assert wait_until(lambda: is_capturing(router), 20)
        check_calls(network)
        follow(router, blocks(title, part="Remove"))
        wait_until(lambda: listed(router) == before, 20)
        assert listed(router) == before


def enable_ufw(router: Sandbox) -> None:
    """Does what the package's own script does, and what every router with ufw needs."""
    router.run("sh", "-ec", UFW)
    follow(router, ["ufw --force enable", "ufw route allow in on lan0 out on wan0", "ufw reload"])


def test_A75_ufw(network: Network, router: Sandbox, log: Path) -> None:
    enable_ufw(router)
    check_section(network, router, log, "ufw", "ufw reload")
    assert "sipnat" not in router.run("sh", "-c", "cat /etc/ufw/*.rules")


@contextmanager
def firewalld(router: Sandbox) -> Iterator[None]:
    """Runs firewalld, on a bus of its own, with the zones and the policy of the guide."""
    router.write("/run/dbus/bus.conf", BUS)
    bus = ("dbus-daemon", "--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile")
    with ExitStack() as stack:
        for command in (bus, ("firewalld", "--nofork", "--nopid")):
            process = subprocess.Popen(router.command(*command), stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
        asking = router.command("firewall-cmd", "--state")
        assert wait_until(lambda: not subprocess.run(asking, capture_output=True).returncode, 30)
        follow(router, blocks("firewalld")[1:2])
        yield


def test_A75_firewalld(network: Network, router: Sandbox, log: Path) -> None:
    with firewalld(router):
        check_section(network, router, log, "firewalld", "firewall-cmd --reload")


def test_A75_firewalld_by_a_rule_that_sipnat_looks_after(
    network: Network, router: Sandbox, log: Path
) -> None:
    with firewalld(router), running(router, log):
        before = listed(router)
        accept_automatically(router)
        check_all_passes(network)
        router.run("firewall-cmd", "--reload")
        assert wait_until(lambda: complaints(router) == [], 20)
        guide.furnish(router, BASE)
        router.run("sipnat", "reload")
        assert listed(router) == before


def accept_automatically(router: Sandbox) -> None:
    """Does what the guide says where sipnat is to put the rule in place itself."""
    assert complaints(router)
    guide.furnish(router, BASE + blocks("The mark", "toml")[0])
    router.run("sipnat", "reload")
    assert complaints(router) == []


def test_A75_a_host_with_docker(network: Network, router: Sandbox, log: Path) -> None:
    router.run("iptables-restore", text=DOCKER)
    before = listed(router)
    with running(router, log):
        assert {row["check"] for row in complaints(router)} == {"forward-policy"}
        set_up, way_out = blocks("A host with Docker")
        follow(router, [set_up])
        check_all_passes(network)
        follow(router, [way_out])
        with connect(network, Endpoint(PHONE_1, 40000), Endpoint(SERVER, 443)) as line:
            line.exchange()
        router.run("iptables", "-D", "DOCKER-USER", "1")
        router.run("iptables", "-D", "DOCKER-USER", "1")
        follow(router, blocks("A host with Docker", part="Remove"))
    assert listed(router) == before


def test_A75_openwrt_as_far_as_its_chains_go(network: Network, router: Sandbox, log: Path) -> None:
    network.router.run("nft", "delete", "table", "ip", "home_router")
    router.write("/usr/local/bin/fw4", f'#!/bin/sh\n[ "$1" = reload ] && exec nft -f {FW4}\n')
    router.run("chmod", "+x", "/usr/local/bin/fw4")
    router.run("fw4", "reload")
    with running(router, log):
        before = listed(router)
        assert {"input-policy", "forward-policy"} <= {row["check"] for row in complaints(router)}
        follow(router, blocks("OpenWrt")[1:])
        check_all_passes(network)
        router.run("fw4", "reload")
        assert complaints(router) == []
        follow(router, blocks("OpenWrt", part="Remove"))
        assert listed(router) == before


def test_A75_plain_nftables(network: Network, router: Sandbox, log: Path) -> None:
    (rules,) = blocks("Plain nftables", "nft")
    without = "".join(line for line in rules.splitlines(True) if "for sipnat" not in line)
    assert without.count("\n") == rules.count("\n") - 2
    with running(router, log):
        router.write("/etc/nftables.conf", without)
        follow(router, blocks("Plain nftables", part="Remove"))
        assert wait_until(lambda: "table inet sipnat" in network.ruleset(), 20)
        before = listed(router)
        assert complaints(router)
        router.write("/etc/nftables.conf", rules)
        load, _ = commands(blocks("Plain nftables")[0])
        router.run("sh", "-c", load)
        assert wait_until(lambda: complaints(router) == [], 20)
        check_all_passes(network)
        router.write("/etc/nftables.conf", without)
        follow(router, blocks("Plain nftables", part="Remove"))
        assert wait_until(lambda: listed(router) == before, 20)


def test_A75_ipv6_by_the_same_rules(request: pytest.FixtureRequest, log: Path) -> None:
    with (
        Network(lan6=LAN_ROUTED6) as network,
        furnished(network, request.config.cache) as router,
    ):
        router.write("/etc/nftables.conf", blocks("Plain nftables", "nft")[0])
        router.run("nft", "-f", "/etc/nftables.conf")
        router.run("ip6tables-restore", text=DOCKER6)
        with running(router, log):
            assert {row["check"] for row in complaints(router)} == {"forward-policy"}
            follow(router, blocks("IPv6"))
            phones = (f"{LAN_ROUTED6}20", f"{LAN_ROUTED6}21")
            check_calls(network, phones=phones, server=SERVER6)


def test_a93_a_second_uplink_has_a_file_and_marks_of_its_own(
    network: Network, router: Sandbox, log: Path
) -> None:
    network.add_uplink()
    (second,) = blocks("Several uplinks", "toml")
    config = "/etc/sipnat/sipnat1.toml"
    router.write(config, second)
    doctor, _, status = commands(blocks("Several uplinks")[0])
    assert complaints(router, doctor) == []
    with running(router, log), running(router, log.with_name("log1"), config):
        assert "in service" in router.run("sh", "-c", status)
        marks = {settings.uplink: f"{settings.relay_mark:#010x}" for settings in uplinks()}
        assert all(f"`{mark}`" in GUIDE for mark in marks.values())
        assert marks[1] in router.run("nft", "list", "table", "inet", "sipnat1")
    *_, removal = commands(blocks("Several uplinks", part="Remove")[0])
    follow(router, [removal])
    assert "sipnat1" not in network.ruleset()


def uplinks() -> list[Settings]:
    return [Settings(("lan0",), "wan0", ("203.0.113.1",), uplink=each) for each in range(3)]


def test_the_marks_are_those_of_the_rules() -> None:
    for each in uplinks():
        assert f"| `{each.mark_mask:#010x}` | `{each.relay_mark:#010x}` |" in GUIDE
    snippets = "".join(path.read_text() for path in DEPLOY.glob("firewall/*/*"))
    for each in uplinks():
        assert f"{each.mark_mask:#010x}" in snippets and f"{each.relay_mark:#010x}" in snippets


def test_what_is_left_goes_by_one_command(network: Network, router: Sandbox, log: Path) -> None:
    before = network.ruleset()
    with running(router, log):
        check_calls(network)
        follow(router, blocks("See that it works"))
    follow(router, blocks("Remove it")[1:])
    assert network.ruleset() == before


def test_every_command_is_followed_or_named_as_one_that_cannot_be() -> None:
    followed = {
        each
        for title in FOLLOWED
        for part in ("", *(["Remove"] if title in REMOVED else []))
        for block in blocks(title, part=part)
        for each in commands(block)
    }
    left = {each for each in guide.all_commands() if each not in followed}
    assert [each for each in left if not each.startswith(tuple(NOT_HERE))] == []


def test_every_block_of_configuration_is_valid(tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)):
        path = tmp_path / f"{number}.toml"
        path.write_text(block if "internal" in block else BASE + block)
        load_config(path)
