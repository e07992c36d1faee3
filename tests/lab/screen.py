"""What the demo prints: by Rich on a terminal, the same words in plain text anywhere else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.lab.message import Message

PLAIN_WIDTH = 100
REMOVED = "bold red"
ADDED = "bold green"
WORD = re.compile(r"[\w.]+|.")


class Screen:
    """A console for steps, messages and tables."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH)

    def done(self, step: str, seconds: float) -> None:
        """Says that a step held."""
        self._print(Text.assemble(("ok  ", ADDED), f"{step} ", (f"({seconds:.1f} s)", "dim")))

    def failed(self, step: str, reason: str) -> None:
        """Says which step did not hold, and why: the last line."""
        head, *detail = reason.splitlines() or [""]
        for line in detail:
            self._print(Text(f"    {line}"))
        self._print(Text.assemble(("FAILED  ", REMOVED), f"{step}: {head}"))

    def finished(self, seconds: float) -> None:
        """Says that all held."""
        self._print(Text.assemble(("demo passed", ADDED), f" in {seconds:.1f} s"))

    def text(self, title: str, body: str) -> None:
        """Shows lines under a title."""
        self._title(title)
        for line in body.rstrip().splitlines():
            self._print(Text(f"    {line}"))
        self._console.print()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Shows rows under a title."""
        self._title(title)
        table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*row)
        with self._console.capture() as drawn:
            self._console.print(table)
        for line in drawn.get().splitlines():
            self._print(Text.assemble("    ", Text.from_ansi(line.rstrip())))
        self._console.print()

    def difference(self, title: str, before: Message, after: Message) -> None:
        """Shows a message with its edited lines twice, what differs in them highlighted."""
        self._title(title)
        for text in edited_lines(before.raw.decode(), after.raw.decode()):
            self._print(text)
        self._console.print()

    def _title(self, title: str) -> None:
        self._console.print()
        self._print(Text(title, "bold"))

    def _print(self, text: Text) -> None:
        self._console.print(text)


def edited_lines(before: str, after: str) -> Iterator[Text]:
    """Yields each line once, or as a "-" and a "+" line where it was edited."""
    for old, new in zip(before.splitlines(), after.splitlines(), strict=True):
        if old == new:
            yield Text(f"      {old}", "dim")
            continue
        removed, added = Text("    - "), Text("    + ")
        for is_same, was, became in edited_words(old, new):
            removed.append(was, None if is_same else REMOVED)
            added.append(became, None if is_same else ADDED)
        yield removed
        yield added


def edited_words(old: str, new: str) -> Iterator[tuple[bool, str, str]]:
    """Yields what two lines share and what differs, by whole words: an address is one."""
    before, after = WORD.findall(old), WORD.findall(new)
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        yield tag == "equal", "".join(before[a:b]), "".join(after[c:d])
