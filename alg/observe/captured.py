"""One call out of captures, as a story: what the gateway would have done for it.

In a capture from both sides of the NAT each message stands twice, as it came and as it left. What
the engine has made of the first is recognised as the second, and not told again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from alg.observe.entry import Entry, StreamEntry, parse_entries
from alg.observe.explain import Explainer, Explanation
from alg.observe.heading import read_heading
from alg.observe.story import is_of_call, passage_row
from alg.observe.words import shown
from alg.verdict import Verdict
from nat_table.endpoint import Endpoint

SHOWN_CALLS = 10


class CapturedCall(NamedTuple):
    """A call, its messages and mappings, and its media."""

    call_id: str
    entries: list[Entry]
    streams: list[StreamEntry]


def captured_call(
    explainer: Explainer, explanations: Iterable[Explanation], call_id: str | None
) -> CapturedCall:
    """Returns the call of this name, or the only one; raises ValueError where there is none.

    Raises CaptureError where a capture ends in error.
    """
    kept = list(explanations)
    calls = dict.fromkeys(
        heading.call_id
        for each in kept
        if (heading := read_heading(each.passage.datagram.payload)).call_id
        and (call_id is not None or heading.method == "INVITE")
        and (call_id is None or is_of_call(each.passage, call_id))
    )
    if len(calls) != 1:
        raise ValueError(which_call(list(calls), call_id))
    (found,) = calls
    rows = [row for each in _without_copies(kept) for row in _rows(each, found)]
    if all(row.get("direction") == "none" for row in rows):
        raise ValueError("no message of the call crosses the gateway: capture the internal side")
    return CapturedCall(found, parse_entries(rows), list(explainer.media.streams(found)))


def _without_copies(explanations: Iterable[Explanation]) -> Iterator[Explanation]:
    """Yields all but the messages that are what the engine has made of one before."""
    made: Counter[tuple[Endpoint, Endpoint, bytes]] = Counter()
    for each in explanations:
        passage = each.passage
        captured = each.source, each.destination, passage.datagram.payload
        if made[captured]:
            made[captured] -= 1
            continue
        if passage.left is not None and passage.outcome.verdict is Verdict.REWRITTEN:
            _, source, destination, payload = passage.left
            made[source, destination, payload] += 1
        yield each


def _rows(explanation: Explanation, call_id: str) -> Iterable[dict[str, object]]:
    expired = [row for row in explanation.expired if row["call_id"] == call_id]
    passage = explanation.passage
    if expired:
        yield {"event": "change", "time": passage.time, "what": "expired", "closed": expired}
    if is_of_call(passage, call_id):
        yield passage_row(passage, 0.0, explanation.index, is_full=False)


def which_call(calls: list[str], call_id: str | None) -> str:
    """Says that none of these calls, or none alone, has this name."""
    if not calls:
        return "there is no call" if call_id is None else f"there is no call {shown(call_id)}"
    some = ", ".join(map(shown, calls[:SHOWN_CALLS]))
    more = f" and {len(calls) - SHOWN_CALLS} more" if len(calls) > SHOWN_CALLS else ""
    return f"there are several calls, name one of {some}{more}"
