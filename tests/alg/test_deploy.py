"""What is shipped for Prometheus and Grafana: it is well-formed, and asks for what there is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alg.config import Config
from alg.daemon.ledger import Ledger
from alg.daemon.scrape import Scrape
from alg.observe.exposition import render_metrics
from alg.observe.media_activity import MediaActivity
from alg.verdict import Reason
from tests.alg.daemon.switchboard import Switchboard
from tests.promtool import Promtool

DEPLOY = Path(__file__).resolve().parents[2] / "alg" / "deploy"
ALERTS = DEPLOY / "sipnat-alerts.yml"
DASHBOARD = DEPLOY / "sipnat-dashboard.json"
SUFFIXES = re.compile(r"_(total|bucket|sum|count)$")

PORTS = {"limit": "ports", "counts": "udp ports", "of": "203.0.113.1"}
# What is scraped every 30 seconds, by metric and labels, in Prometheus' words for a row of values.
SERIES: list[tuple[str, dict[str, str], str]] = [
    ("up", {"job": "sipnat"}, "1x10 0x20"),
    ("sipnat_media_one_way", {}, "0x10 2x20"),
    ("sipnat_limit_used", PORTS, "900x30"),
    ("sipnat_limit_max", PORTS, "1000x30"),
    ("sipnat_reasons_total", {"reason": "quota"}, "0+10x30"),
    ("sipnat_queue_dropped_total", {"full": "queue"}, "0x30"),
]
# The alert, when it is looked at, its labels, and what it says; None where it must not fire.
ALERTED: list[tuple[str, str, dict[str, str], tuple[str, str] | None]] = [
    ("SipnatDown", "4m", {}, None),
    (
        "SipnatDown",
        "10m",
        {"severity": "critical", "job": "sipnat"},
        (
            "sipnat on r does not answer",
            "Calls go on, but new ones may lack audio. See: systemctl status sipnat",
        ),
    ),
    ("SipnatOneWayAudio", "5m", {}, None),
    (
        "SipnatOneWayAudio",
        "10m",
        {"severity": "warning"},
        ("2 streams of r have audio one way only", "See: sipnat show calls"),
    ),
    (
        "SipnatLimitNear",
        "10m",
        {"severity": "warning", **PORTS},
        (
            "90% of ports is used at r",
            "Past the limit calls may lack audio (udp ports 203.0.113.1). See: sipnat show limits",
        ),
    ),
    (
        "SipnatLimitHit",
        "12m",
        {"severity": "warning", "reason": "quota"},
        (
            "messages pass r as they came: quota",
            "Their calls may lack audio. See: sipnat show limits",
        ),
    ),
    ("SipnatQueueDrops", "12m", {}, None),
]


@pytest.fixture
def promtool(request: pytest.FixtureRequest) -> Promtool:
    return Promtool(request.config.cache)


def metric_names() -> set[str]:
    """Returns the metrics that a gateway has, without the suffixes of their samples."""
    board = Switchboard()
    config = Config(internal=("lan0",), external="wan0")
    ledger = Ledger(board.table, board.kernel)
    media = MediaActivity()
    scrape = Scrape(config, board.gateway, ledger, board.kernel, board.connections, media)
    text, _ = render_metrics(asyncio.run(scrape.read()), "")
    return {family.name for family in text_string_to_metric_families(text.decode())}


def expressions() -> Iterator[str]:
    """Yields every query of the dashboard."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: str(path.name))
def test_every_metric_that_is_asked_for_exists(path: Path) -> None:
    names = set(re.findall(r"\b(?:sipnat|process)_[a-z_]+", path.read_text()))
    known = metric_names()
    assert len(names) > 5
    assert {SUFFIXES.sub("", name) for name in names} <= known, names


def test_every_metric_is_on_the_dashboard() -> None:
    text = DASHBOARD.read_text()
    assert [name for name in metric_names() if name.startswith("sipnat_") and name not in text] == [
        "sipnat_draining"
    ]


def test_every_metric_is_in_the_readme() -> None:
    text = (DEPLOY.parents[1] / "README.md").read_text()
    described = {SUFFIXES.sub("", name) for name in re.findall(r"`(sipnat_[a-z_]+)`", text)}
    assert described == {name for name in metric_names() if name.startswith("sipnat_")}


def test_every_reason_that_is_alerted_on_exists() -> None:
    listed = re.findall(r'reason=~"([^"]+)"', ALERTS.read_text())
    assert listed
    for each in listed:
        assert set(each.split("|")) <= {reason.value for reason in Reason}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_prometheus_takes_the_alert_rules(promtool: Promtool) -> None:
    promtool.check_rules(ALERTS)


def test_prometheus_takes_the_queries_of_the_dashboard(promtool: Promtool, tmp_path: Path) -> None:
    queries = [
        each.replace("$__rate_interval", "5m").replace("$instance", ".*")
        for each in expressions()
        if not each.startswith("label_values(")
    ]
    rules = [{"record": f"q:{i}", "expr": each} for i, each in enumerate(queries)]
    path = tmp_path / "queries.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool.check_rules(path)


def test_alerts_fire_when_they_should_and_say_what_to_do(
    promtool: Promtool, tmp_path: Path
) -> None:
    tests = {
        "interval": "30s",
        "input_series": [
            {"series": name + label_text({"instance": "r", **labels}), "values": values}
            for name, labels, values in SERIES
        ],
        "alert_rule_test": [
            {"eval_time": at, "alertname": alert, "exp_alerts": expected(labels, says)}
            for alert, at, labels, says in ALERTED
        ],
    }
    path = tmp_path / "tests.yml"  # JSON is YAML
    path.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": [tests]}))
    promtool.test_rules(path)


def label_text(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"


def expected(labels: dict[str, str], says: tuple[str, str] | None) -> list[dict[str, object]]:
    if says is None:
        return []
    annotations = dict(zip(("summary", "description"), says, strict=True))
    return [{"exp_labels": {"instance": "r", **labels}, "exp_annotations": annotations}]
