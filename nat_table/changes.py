"""What a call did to the table: the only thing that `rules` and a store consume.

Every change carries what is needed to undo it, so that the table can be put back when the kernel
refuses a commit (`NatTable.revert`). `Admitted` and `Excluded`, `Permitted` and `Forbidden` follow
from the others: they spare the kernel side from counting what the pinholes of a binding share.
A change never changes itself; why each has an `__init__` is told in `nat_table.binding`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nat_table.binding import Binding, Permit, Pinhole


@dataclass(init=False, slots=True, unsafe_hash=True)
class Opened:
    """A binding was made, with its first pinhole."""

    binding: Binding
    pinhole: Pinhole

    def __init__(self, binding: Binding, pinhole: Pinhole) -> None:
        self.binding = binding
        self.pinhole = pinhole


@dataclass(init=False, slots=True, unsafe_hash=True)
class Refreshed:
    """One pinhole of a standing binding was added, moved or dropped.

    `before` is None where it was added, `after` is None where it was dropped.
    """

    binding: Binding
    before: Pinhole | None
    after: Pinhole | None

    def __init__(self, binding: Binding, before: Pinhole | None, after: Pinhole | None) -> None:
        self.binding = binding
        self.before = before
        self.after = after


@dataclass(init=False, slots=True, unsafe_hash=True)
class Closed:
    """A binding ended with its last pinhole; `pinholes` are those it had before."""

    binding: Binding
    pinholes: tuple[Pinhole, ...]

    def __init__(self, binding: Binding, pinholes: tuple[Pinhole, ...]) -> None:
        self.binding = binding
        self.pinholes = pinholes


@dataclass(init=False, slots=True, unsafe_hash=True)
class Turned:
    """A binding has become one of another kind; `before` differs in nothing else."""

    binding: Binding
    before: Binding

    def __init__(self, binding: Binding, before: Binding) -> None:
        self.binding = binding
        self.before = before


@dataclass(init=False, slots=True, unsafe_hash=True)
class Admitted:
    """The first pinhole of a binding has named this remote address."""

    binding: Binding
    address: str

    def __init__(self, binding: Binding, address: str) -> None:
        self.binding = binding
        self.address = address


@dataclass(init=False, slots=True, unsafe_hash=True)
class Excluded:
    """The last pinhole of a binding that named this remote address names it no longer."""

    binding: Binding
    address: str

    def __init__(self, binding: Binding, address: str) -> None:
        self.binding = binding
        self.address = address


@dataclass(init=False, slots=True, unsafe_hash=True)
class Permitted:
    """The first pinhole of a binding has this permit."""

    binding: Binding
    permit: Permit

    def __init__(self, binding: Binding, permit: Permit) -> None:
        self.binding = binding
        self.permit = permit


@dataclass(init=False, slots=True, unsafe_hash=True)
class Forbidden:
    """The last pinhole of a binding that had this permit has it no longer."""

    binding: Binding
    permit: Permit

    def __init__(self, binding: Binding, permit: Permit) -> None:
        self.binding = binding
        self.permit = permit


Change = Opened | Refreshed | Closed | Turned | Admitted | Excluded | Permitted | Forbidden
