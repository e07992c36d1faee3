"""Rows of a trace as lines: 80 columns, the phone on the left, and nothing that does harm."""

from __future__ import annotations

from typing import Any

import pytest

from alg.observe.story import passage_row
from alg.observe.traced import WIDTH, TraceLines
from tests.alg.observe.test_ring import call

HOSTILE = "\x1b]0;owned\x07<b>\n\u202e"
ROWS: list[dict[str, Any]] = [
    dict(passage_row(each, 0.0, number, is_full=True))
    for number, each in enumerate(call().passages, 1)
]


def lines(row: dict[str, Any], *, is_full: bool = False) -> list[str]:
    return [text for text, _ in TraceLines(is_full=is_full).render(row)]


def line(**keys: object) -> str:
    (text,) = lines(ROWS[0] | keys)
    return text


def test_the_phone_stands_on_the_left_whoever_sent() -> None:
    lines_of = TraceLines(is_full=False)
    outbound, inbound = (next(lines_of.render(row))[0] for row in ROWS[:2])
    assert " 10.0.0.20:5060 -> 203.0.113.10:5060 INVITE " in outbound
    assert " 10.0.0.20:5060 <- 203.0.113.10:5060 180 INVITE " in inbound


def test_a_hairpin_is_from_phone_to_phone() -> None:
    assert " 10.0.0.20:5060 -> 10.0.0.21:5060 " in line(
        direction="hairpin", destination="203.0.113.1:5060", left_destination="10.0.0.21:5060"
    )


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"verdict": "rewritten", "reason": "rewritten", "closed": []}, " rewritten "),
        ({"verdict": "unchanged", "reason": "nothing-to-change"}, " unchanged +3"),
        ({"verdict": "unchanged", "reason": "not-sip", "method": None}, " not SIP    not-sip"),
        ({"verdict": "dropped", "reason": "commit-failed"}, " commit-failed drop"),
    ],
)
def test_the_outcome_is_told_in_few_words(keys: dict[str, object], told: str) -> None:
    assert told in line(**keys)


def test_a_line_is_never_longer_than_a_terminal_is_wide() -> None:
    long6 = "[2001:db8:1234:5678:9abc:def0:1234:5678]:50600"
    text = line(source=long6, destination=long6, method="X" * 60_000, call_id="y" * 60_000)
    assert len(text) == WIDTH
    assert "~9abc:def0:1234:5678]:50600"[-20:] in text


def test_what_strangers_wrote_is_escaped() -> None:
    row = ROWS[0] | {"method": HOSTILE, "call_id": HOSTILE, "reason": HOSTILE, "detail": HOSTILE}
    assert all(text.isprintable() for text in lines(row, is_full=True))


def test_changes_and_losses_are_lines_too() -> None:
    change = {"event": "change", "time": 0.0, "what": "expired", "opened": [], "closed": [{}, {}]}
    assert lines(change) == ["00:00:00.000 expired: 2 closed"]
    assert lines({"event": "lost", "count": 7}) == [
        "... 7 more are not shown, because they came too fast"
    ]
    assert lines({"event": "watching"}) == []
    assert lines({"event": "of a newer gateway"}) == []


def test_a_whole_message_has_its_changed_lines_marked() -> None:
    shown = lines(ROWS[0], is_full=True)
    assert "    - c=IN IP4 10.0.0.20" in shown
    assert "    + c=IN IP4 203.0.113.1" in shown
    assert not any(text != text.rstrip() for text in shown)
    dropped = ROWS[0] | {"left_source": None, "after": None, "verdict": "dropped"}
    assert not any(text.startswith("    -") for text in lines(dropped, is_full=True))
