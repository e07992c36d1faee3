"""How fast counts grow: each row beside the one before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alg.cli.columns import Row


class Rates:
    """Adds to rows how much each of some counts has grown a second, since it saw the row before.

    A row is known again by the values of its `identity`. The rate of "sent" is "sent_rate"; None
    for a row that is new, and for a count that has begun anew.
    """

    def __init__(self, identity: tuple[str, ...], counts: tuple[str, ...]) -> None:
        self._identity = identity
        self._counts = counts
        self._before: dict[tuple[object, ...], tuple[object, ...]] = {}
        self._at = 0.0

    def add(self, rows: Iterable[Row], at: float) -> Iterator[Row]:
        """Yields the rows of one moment with their rates, in units a second."""
        seconds = at - self._at
        before, self._before, self._at = self._before, {}, at
        nothing = (None,) * len(self._counts)
        for row in rows:
            identity = tuple(row.get(key) for key in self._identity)
            counts = tuple(row.get(key) for key in self._counts)
            self._before[identity] = counts
            rates = map(_rate, before.get(identity, nothing), counts, [seconds] * len(counts))
            yield {**row, **dict(zip((f"{key}_rate" for key in self._counts), rates, strict=True))}


def _rate(before: object, after: object, seconds: float) -> float | None:
    if not isinstance(before, int) or not isinstance(after, int) or after < before or seconds <= 0:
        return None
    return round((after - before) / seconds, 1)
