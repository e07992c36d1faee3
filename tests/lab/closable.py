"""What everything in the lab is: something that `with` closes."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closable:
    """A thing with `close`, which a `with` block calls at its end."""

    def close(self) -> None:
        """Gives back what the thing holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
