"""Metrics as Prometheus reads them: the only file that knows prometheus-client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from alg.observe.family import Described, Distribution
from alg.observe.metrics import BOUNDS

PREFIX = "sipnat_"


def render_metrics(described: Iterable[Described], accept: str) -> tuple[bytes, str]:
    """Returns the metrics, and those of this process, as text of the type that is accepted."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(described))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Families(Collector):
    """What prometheus-client collects from."""

    def __init__(self, described: Iterable[Described]) -> None:
        self._described = described

    def collect(self) -> Iterator[Metric]:
        """Yields each metric with its samples."""
        return map(_metric, self._described)


def _metric(described: Described) -> Metric:
    name = PREFIX + described.name
    if isinstance(described, Distribution):
        histogram = described.histogram
        bounds = [*map(str, BOUNDS), "+Inf"]
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        return HistogramMetricFamily(name, described.help, buckets, histogram.total)
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, described.help, labels=described.labels)
    for labels, value in described.values.items():
        family.add_metric(labels, value)
    return family
