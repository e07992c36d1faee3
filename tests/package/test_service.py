"""The gateway as the service that systemd runs: few rights, with which all that it can do works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import receive_all
from tests.lab.network import (
    LAN_ROUTED6,
    LAN_ROUTER,
    PHONE_1,
    REMOTE_1,
    SERVER6,
    STATEFUL_FIREWALL6,
    Network,
)
from tests.lab.site import Site
from tests.netns.calls import check_audio
from tests.netns.firewalls import DOCKER
from tests.netns.pcp_client import PcpClient, external_of
from tests.package.router import CONFIG, UNIT, Router

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600), pytest.mark.xdist_group("machine")]

COLLECTOR = Endpoint(REMOTE_1, 9060)
PAGE = "127.0.0.1:9570"
EVERYTHING = f"""
install_accept = "auto"
media_filter = "latch"
tcp_media = true
upnp = true

[http]
listen = "{PAGE}"

[hep]
server = "{COLLECTOR}"
"""


def check_call(site: Site, router: Router) -> None:
    """Checks that a call has its audio and lets its ports go."""
    site.register(site.phone_1)
    sent, offer = site.call_out(site.phone_1)
    check_audio(site.talk(site.phone_1, offer, site.server_media_1))
    site.hang_up(site.phone_1, site.server, sent)
    assert router.has_no_media()


def test_it_runs_with_three_capabilities_and_no_more(router: Router) -> None:
    lines = router.run("cat", f"/proc/{router.pid}/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    rights = 1 << 10 | 1 << 12 | 1 << 13  # CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == rights, kind
    user = router.run("id", "--user", "sipnat").strip()
    assert set(status["Uid"].split()) == {user} != {"0"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    *_, verdict = router.run("systemd-analyze", "security", "--no-pager", UNIT).splitlines()
    exposure = float(verdict.split(": ")[1].split()[0])
    assert exposure < 3.0, verdict


class TestEverything:
    """With every feature switched on, on a router with IPv6 and another firewall."""

    @pytest.fixture
    def network(self) -> Iterator[Network]:
        with Network(lan6=LAN_ROUTED6) as network:
            network.router.run("nft", "-f", "-", text=STATEFUL_FIREWALL6)
            network.router.run("iptables-restore", text=DOCKER)
            yield network

    def test_works_as_a_service(self, router: Router, network: Network) -> None:
        path = router.path(CONFIG)
        path.write_text(path.read_text() + EVERYTHING)
        collector = network.wan.udp_socket(*COLLECTOR)
        router.systemctl("restart")

        for transport in ("udp", "tcp"):
            with Site(network, transport=transport) as site:
                check_call(site, router)
        phones6 = (f"{LAN_ROUTED6}20", f"{LAN_ROUTED6}21")
        with Site(network, phones=phones6, server=SERVER6) as site:
            check_call(site, router)
        with PcpClient(network.lan, PHONE_1, LAN_ROUTER) as client:
            assert external_of(client.map(7000))
        metrics = network.router.run("curl", "-sS", "--fail", f"http://{PAGE}/metrics")
        assert "sipnat_registrations" in metrics
        with collector:
            assert receive_all(collector)
        assert router.complaints() == []
        assert router.warnings() == []


def test_who_is_in_its_group_may_ask_and_nobody_else(router: Router) -> None:
    router.run("useradd", "--groups", "sipnat", "admin")
    router.run("useradd", "guest")
    asked = {
        user: router.try_to_run("runuser", "-u", user, "--", "sipnat", "status")
        for user in ("admin", "guest")
    }
    assert "in service" in asked["admin"].stdout
    assert asked["guest"].returncode == 1
    assert "may ask" in asked["guest"].stderr
