"""What is counted of messages: bounded labels whatever strangers send, and durations in buckets."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from alg.datagram import Datagram
from alg.observe.exposition import render_metrics
from alg.observe.family import Described, Distribution, Family
from alg.observe.metrics import BOUNDS, CLASSES, METHODS, NONE, OTHER, REQUEST, Metrics
from alg.observe.passage import Passage
from alg.verdict import Outcome, Reason, Verdict
from nat_table.endpoint import Endpoint

PHONE = Endpoint("10.0.0.20", 5060)
SERVER = Endpoint("203.0.113.10", 5060)


def passage(
    payload: bytes,
    *,
    took: float = 1e-4,
    commit: float = 0.0,
    reason: Reason = Reason.REWRITTEN,
) -> Passage:
    """Returns the passage of a message from a phone to the server."""
    outcome = Outcome(Verdict.REWRITTEN, reason, payload)
    return Passage(1.0, took, commit, Datagram(PHONE, SERVER, payload), outcome, None, None)


def seen(payload: bytes, reason: Reason = Reason.REWRITTEN) -> tuple[str, str]:
    """Returns by which method and kind a message is counted."""
    metrics = Metrics()
    metrics.see(passage(payload, reason=reason))
    [label] = metrics.messages
    return label.method, label.kind


@pytest.mark.parametrize(
    ("payload", "method", "kind"),
    [
        (b"INVITE sip:a@b SIP/2.0\r\n", "INVITE", REQUEST),
        (b"\r\n\r\nBYE sip:a@b SIP/2.0\r\n", "BYE", REQUEST),
        (b"invite sip:a@b SIP/2.0\r\n", OTHER, REQUEST),
        (b"X" * 60_000, OTHER, REQUEST),
        (b"SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE\r\n", "INVITE", "1xx"),
        (b"SIP/2.0 486 Busy\r\ncseq :\t7  OPTIONS\r\n", "OPTIONS", "4xx"),
        (b"SIP/2.0 200 OK\r\nSubject: CSeq: 1 BYE\r\nCSeq: 1 FOO\r\n", OTHER, "2xx"),
        (b"SIP/2.0 999 What\r\n", OTHER, OTHER),
    ],
)
def test_a_message_is_counted_by_its_method_and_kind(
    payload: bytes, method: str, kind: str
) -> None:
    assert seen(payload) == (method, kind)


@pytest.mark.parametrize("reason", [Reason.NOT_SIP, Reason.KEEPALIVE])
def test_what_is_not_sip_has_no_method(reason: Reason) -> None:
    assert seen(b"INVITE is a word here too", reason) == (NONE, NONE)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_labels_are_bounded_whatever_is_sent(payloads: list[bytes]) -> None:
    metrics = Metrics()
    for payload in payloads:
        metrics.see(passage(payload))
        metrics.see(passage(b"SIP/2.0 " + payload))
    assert {label.method for label in metrics.messages} <= {*METHODS.values(), OTHER}
    assert {label.kind for label in metrics.messages} <= {*CLASSES.values(), REQUEST, OTHER}
    assert metrics.messages.total() == 2 * len(payloads)


def parsed(*described: Described) -> Mapping[tuple[str, ...], float]:
    """Returns what a scraper reads, by name and label values, without the process's own metrics."""
    text, _ = render_metrics(described, "")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("sipnat_")
    }


def test_durations_are_in_the_buckets_of_their_bounds() -> None:
    metrics = Metrics()
    for took in (0.0, BOUNDS[0], 0.003, 7.0):
        metrics.see(passage(b"", took=took))
    samples = parsed(Distribution("x_seconds", "How long.", metrics.decisions))
    assert samples["sipnat_x_seconds_bucket", "5e-05"] == 2
    assert samples["sipnat_x_seconds_bucket", "0.002"] == 2
    assert samples["sipnat_x_seconds_bucket", "0.005"] == 3
    assert samples["sipnat_x_seconds_bucket", "0.5"] == 3
    assert samples["sipnat_x_seconds_bucket", "+Inf"] == samples["sipnat_x_seconds_count",] == 4
    assert samples["sipnat_x_seconds_sum",] == pytest.approx(7.00305)


def test_only_what_was_committed_has_a_commit_latency() -> None:
    metrics = Metrics()
    metrics.see(passage(b""))
    metrics.see(passage(b"", commit=0.001))
    assert sum(metrics.commits.counts) == 1


def test_labels_are_escaped_and_values_read_back() -> None:
    nasty = 'a"b\\c\nd{e="f"} 1\n# HELP'
    family = Family("things_total", "Things.\nMany \\.", {(nasty,): 3, ("",): 4}, ("of",))
    assert parsed(family) == {
        ("sipnat_things_total", nasty): 3,
        ("sipnat_things_total", ""): 4,
    }


@pytest.mark.parametrize(
    "accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0"]
)
def test_both_formats_of_prometheus_are_spoken(accept: str) -> None:
    text, content_type = render_metrics([Family("a", "A.", {(): 1})], accept)
    assert content_type.startswith(accept.partition(";")[0] or "text/plain")
    assert b"sipnat_a 1.0\n" in text
