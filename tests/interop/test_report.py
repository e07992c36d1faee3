"""What the matrix says: whose fault a failing cell is, and how a row is written."""

from __future__ import annotations

from dataclasses import replace

from tests.interop.matrix import CANNOT, FAILED, OK, Result
from tests.interop.report import as_markdown, as_text, faults
from tests.interop.stage import Cell

CELL = Cell("baresip", "kamailio", "udp", "outgoing", "sipnat")
CEILING = replace(CELL, gateway="routed")
TIMERS = replace(CELL, scenario="session timers")


def test_what_fails_without_any_nat_is_not_the_gateways_fault() -> None:
    ours = Result(CELL, FAILED, "alice rtp received 0")
    assert faults([ours, Result(CEILING, OK)]) == [ours]
    assert faults([ours, Result(CEILING, FAILED)]) == []
    assert faults([ours]) == [ours]
    assert faults([Result(CELL, OK), Result(CEILING, FAILED)]) == []


def test_a_row_of_text_is_a_phone_with_a_gateway() -> None:
    text = as_text([Result(CELL, FAILED, "why"), Result(CEILING, OK)])
    rows = [line.split() for line in text.splitlines() if line.startswith("baresip")]
    assert rows == [
        ["baresip", "Kamailio", "UDP", "sipnat", "fail"],
        ["baresip", "Kamailio", "UDP", "routed,", "no", "NAT", "ok"],
    ]
    assert "sipnat: 0 of 1" in text


def test_a_cell_of_markdown_names_the_gateways_that_it_works_with() -> None:
    text = as_markdown([Result(CELL, OK), Result(CEILING, OK), Result(TIMERS, CANNOT, "too old")])
    assert "| baresip | Kamailio | UDP | S R | n/a |" in text
    assert "- baresip, session timers: too old" in text
    assert "| S | sipnat | 1 of 1 |" in text


def test_a_row_of_two_kinds_names_both() -> None:
    mixed = replace(CELL, peer="pjsua")
    rows = [Result(CELL, OK), Result(mixed, FAILED, "why")]
    assert "| baresip with pjsua | Kamailio | UDP | fail |" in as_markdown(rows)
    assert "baresip with pjsua  Kamailio  UDP   sipnat   fail" in as_text(rows)
