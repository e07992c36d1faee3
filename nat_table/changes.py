"""What a call did to the table: the only thing that `rules` and a store consume.

Every change carries what is needed to undo it, so that the table can be put back when the kernel
refuses a commit (`NatTable.revert`). `Admitted` and `Excluded`, `Permitted` and `Forbidden` follow
from the others: they spare the kernel side from counting what the pinholes of a binding share.
"""

from __future__ import annotations

from dataclasses import dataclass

from nat_table.binding import Binding, Permit, Pinhole


@dataclass(frozen=True, slots=True)
class Opened:
    """A binding was made, with its first pinhole."""

    binding: Binding
    pinhole: Pinhole


@dataclass(frozen=True, slots=True)
class Refreshed:
    """One pinhole of a standing binding was added, moved or dropped.

    `before` is None where it was added, `after` is None where it was dropped.
    """

    binding: Binding
    before: Pinhole | None
    after: Pinhole | None


@dataclass(frozen=True, slots=True)
class Closed:
    """A binding ended with its last pinhole; `pinholes` are those it had before."""

    binding: Binding
    pinholes: tuple[Pinhole, ...]


@dataclass(frozen=True, slots=True)
class Turned:
    """A binding has become one of another kind; `before` differs in nothing else."""

    binding: Binding
    before: Binding


@dataclass(frozen=True, slots=True)
class Admitted:
    """The first pinhole of a binding has named this remote address."""

    binding: Binding
    address: str


@dataclass(frozen=True, slots=True)
class Excluded:
    """The last pinhole of a binding that named this remote address names it no longer."""

    binding: Binding
    address: str


@dataclass(frozen=True, slots=True)
class Permitted:
    """The first pinhole of a binding has this permit."""

    binding: Binding
    permit: Permit


@dataclass(frozen=True, slots=True)
class Forbidden:
    """The last pinhole of a binding that had this permit has it no longer."""

    binding: Binding
    permit: Permit


Change = Opened | Refreshed | Closed | Turned | Admitted | Excluded | Permitted | Forbidden
