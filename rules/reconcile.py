"""What makes the kernel equal to the table, in slices small enough to serve packets in between.

Packets that are served meanwhile commit changes of their own. What a commit has touched is newer
than both lists compared here, so it is left alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from rules.elements import Element, Operation

SLICE = 1024


def differences(
    wanted: Iterable[Element],
    standing: Iterable[Element],
    touched: Container[tuple[str, bytes]] = frozenset(),
) -> Iterator[list[Operation]]:
    """Yields the steps from what stands to what is wanted, deletions first.

    A slice may be empty: comparing takes its time too. `touched` are the names and keys of elements
    that have changed by other ways since `standing` was read; it may grow meanwhile.
    """
    wrong: dict[Element, None] = {}
    for number, element in enumerate(standing, 1):
        wrong[element] = None
        if number % SLICE == 0:
            yield []
    missing: list[Element] = []
    for number, element in enumerate(wanted, 1):
        if element in wrong:
            del wrong[element]
        else:
            missing.append(element)
        if number % SLICE == 0:
            yield []
    for is_added, elements in ((False, list(wrong)), (True, missing)):
        for start in range(0, len(elements), SLICE):
            yield [
                Operation(is_added, element)
                for element in elements[start : start + SLICE]
                if element[:2] not in touched
            ]
