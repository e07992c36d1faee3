"""The plots: well-formed, on their axes, and with every line that the report has."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tests.bench.peers.plot import BOTTOM, LEFT, RIGHT, TOP, line_plot, plots
from tests.bench.peers.report import Report, Sample

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = {
    **{
        f"flat.{size}.{what}": Sample.of([20.0, 22.0])
        for size in (0, 1000, 100000, "calls")
        for what in ("us_per_message", "us_user", "us_system")
    },
    "signalling.a <box>.calls_per_second": Sample.of([1000.0]),
    "signalling.other.calls_per_second": Sample.of([2000.0, 4000.0]),
    "latency.a <box>.10": Sample.of([0.5, 2.0]),
    "latency.a <box>.90": Sample.of([40.0]),
    "latency.other.100": Sample.of([7.0]),
}


def texts(picture: str) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_each_plot_has_its_lines() -> None:
    found = plots(Report("", "", "", 2, FIGURES))
    assert list(found) == ["table.svg", "latency.svg"]
    assert {"0", "1,000", "100,000", "everything"} <= set(texts(found["table.svg"]))
    assert {"a <box>", "other", "3,000"} <= set(texts(found["latency.svg"]))
    assert not plots(Report("", "", "", 2, {}))


def test_points_lie_within_the_axes_in_their_order() -> None:
    points = [(0.0, Sample.of([0.0])), (5.0, Sample.of([1.0, 9.0])), (10.0, Sample.of([100.0]))]
    picture = line_plot("t", ("x", "y"), {"line": points})
    (path,) = re.findall(r'polyline points="([^"]+)"', picture)
    places = [tuple(map(float, each.split(","))) for each in path.split()]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in places)


def test_line_of_zeros_is_drawn() -> None:
    picture = line_plot("t", ("x", "y"), {"line": [(0.0, Sample.of([0.0]))]})
    assert "0.00" in texts(picture)
