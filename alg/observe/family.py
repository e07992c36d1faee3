"""What a metric is, before it is text for somebody.

The names are kept for ever: dashboards and alerts hang on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from alg.observe.metrics import Histogram


class Family(NamedTuple):
    """A metric: what it tells, the names of its labels, and a value for each of their values.

    A name that ends in "_total" is a counter's, any other a gauge's; none has the prefix yet.
    """

    name: str
    help: str
    values: Mapping[tuple[str, ...], float]
    labels: tuple[str, ...] = ()


class Distribution(NamedTuple):
    """A metric of durations."""

    name: str
    help: str
    histogram: Histogram


Described = Family | Distribution
