"""Metrics of a live gateway: scraped, parsed, and in step with what calls do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.network import Network
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.browser import LISTEN
from tests.promtool import Promtool

pytestmark = [pytest.mark.netns, pytest.mark.configured(http={"listen": LISTEN})]

Samples = Mapping[tuple[str, ...], float]


def fetch(router: Namespace, path: str) -> str:
    """Returns what stands at a path of the page; fails where it is not found."""
    return router.run("curl", "-sS", "--fail-with-body", f"http://{LISTEN}{path}")


def rows(router: Namespace, what: str) -> list[dict[str, Any]]:
    """Returns the rows that the page is told."""
    found: list[dict[str, Any]] = json.loads(fetch(router, f"/api/{what}"))["rows"]
    return found


def scrape(router: Namespace) -> Samples:
    """Returns the samples by name and label values, labels in the order of the alphabet."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(fetch(router, "/metrics"))
        for sample in family.samples
    }


def test_metrics_follow_a_call(site: Site, gateway: Gateway, promtool: Promtool) -> None:
    router = site.network.router
    site.register(site.phone_1)
    site.register(site.phone_2)
    sent, arrived = site.call_out(site.phone_1)
    conversation = site.talk(site.phone_1, arrived, SERVER_MEDIA_1)
    assert conversation.flows_on(60)
    samples = scrape(router)
    for name, value in (("calls", 1), ("registrations", 2), ("kernel_behind", 0), ("draining", 0)):
        assert samples[f"sipnat_{name}",] == value
    assert samples["sipnat_mappings", "rtp", "sip", "udp"] == 1
    assert samples["sipnat_mappings", "sip", "sip", "udp"] == 2
    outbound = ("sipnat_messages_total", "outbound", "request", "INVITE", "rewritten", "rewritten")
    assert samples[outbound] == 1
    inbound = ("sipnat_messages_total", "inbound", "2xx", "INVITE", "rewritten", "rewritten")
    assert samples[inbound] == 1
    messages = sum(value for key, value in samples.items() if key[0] == "sipnat_messages_total")
    assert samples["sipnat_message_duration_seconds_count",] == messages
    assert messages == samples["sipnat_reasons_total", "rewritten"]
    assert 0 < samples["sipnat_commit_duration_seconds_count",] <= messages
    assert samples["sipnat_commit_duration_seconds_sum",] > 0
    assert samples["sipnat_limit_used", "calls", "max_calls_per_host", ""] == 1
    assert samples["sipnat_queue_dropped_total", "queue"] == 0
    assert 0 < samples["sipnat_conntrack_flows",] < samples["sipnat_conntrack_flows_limit",]

    def has_counted() -> bool:
        counted = scrape(router)
        return all(
            counted["sipnat_media_packets_total", direction] >= 60
            for direction in ("inbound", "outbound")
        )

    assert wait_until(has_counted, 15.0)
    conversation.stop()
    site.hang_up(site.phone_1, site.server, sent)
    assert wait_until(lambda: scrape(router)["sipnat_calls",] == 0, 5.0)
    promtool.check_metrics(fetch(router, "/metrics"))


@pytest.fixture
def promtool(request: pytest.FixtureRequest) -> Promtool:
    return Promtool(request.config.cache)


def test_one_way_audio_is_a_metric(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_1)
    _, arrived = site.call_out(site.phone_1)
    conversation = site.talk(site.phone_1, arrived, SERVER_MEDIA_1)
    assert conversation.flows_on(20)
    router = site.network.router
    assert scrape(router)["sipnat_media_one_way",] == 0
    conversation.far.stop()
    assert wait_until(lambda: scrape(router)["sipnat_media_one_way",] == 1, 15.0)
    [call] = rows(router, "calls")
    assert "no media from remote" in call["warnings"][0]


def test_users_stay_out_of_what_the_port_tells(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_1)
    sent, _ = site.call_out(site.phone_1)
    told = told_by_the_port(site.network.router, sent.call_id)
    assert "phone1" not in told and sent.call_id in told


@pytest.mark.configured(http={"listen": LISTEN, "users": True})
def test_users_are_told_where_the_configuration_says_so(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_1)
    site.call_out(site.phone_1)
    [call] = rows(site.network.router, "calls")
    assert "phone1" in call["from"] and "server" in call["to"]
    assert "phone1" in rows(site.network.router, "registrations")[0]["user"]


def told_by_the_port(router: Namespace, call_id: str) -> str:
    """Returns all that can be read about a call."""
    what = ("status", "calls", "mappings", "registrations", "connections", "reasons", "limits")
    paths = [*(f"/api/{each}" for each in (*what, "kernel", "upstream")), "/metrics"]
    return "".join(fetch(router, path) for path in (*paths, f"/ladder.svg?call_id={call_id}"))


@pytest.fixture
def taken(network: Network) -> Iterator[None]:
    """Has somebody else listen where the page would be."""
    with network.router.tcp_socket("127.0.0.1", 9570) as listener:
        listener.listen()
        yield


def test_a_port_in_use_costs_the_page_and_nothing_else(
    network: Network, taken: None, gateway: Gateway, site: Site
) -> None:
    assert [line for line in gateway.log if "9570" in line] == [
        "sipnat: there are no metrics and no status page: cannot listen at 127.0.0.1:9570 "
        "(Address already in use)"
    ]
    site.register(site.phone_1)
    site.call_out(site.phone_1)


@pytest.mark.configured()
def test_nothing_listens_unless_it_is_asked_for(gateway: Gateway, network: Network) -> None:
    assert "9570" not in network.router.run("ss", "-Hlnt")


def test_the_port_is_closed_with_the_gateway(gateway: Gateway, network: Network) -> None:
    assert gateway.stop() == 0
    assert "9570" not in network.router.run("ss", "-Hlnt")
    assert not [line for line in gateway.log if "Traceback" in line or "rror" in line]
