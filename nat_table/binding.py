"""What the table keeps: bindings, and the pinholes that keep them alive.

A `Binding` says *where* (internal endpoint <-> external endpoint) and never changes. A `Pinhole`
says *for whom and until when*: one owner's claim on a binding. A binding lives while at least one
pinhole on it does, so that two dialogs may share one RTP port without ending each other's audio.

Values that are made for every message write their `__init__` out: that of a dataclass is text which
the interpreter runs, even where all around it is compiled. For the same reason they are not frozen,
but nobody writes to them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from nat_table.endpoint import Endpoint, Transport


class Kind(enum.Enum):
    """What a binding carries; the value is what the command line prints."""

    SIP = "sip"
    RTP = "rtp"
    RTCP = "rtcp"
    MEDIA = "media"
    """Whatever runs over TCP (MSRP, BFCP, T.38, framed RTP)."""

    ANY = "any"
    """What a client asked for without saying what it is for (PCP, NAT-PMP, UPnP)."""

    __hash__ = object.__hash__  # as in `Transport`


class Owner(NamedTuple):
    """Who keeps a binding alive.

    `scope` is "call", "registration", "connection" (an open TCP connection), "flow" (plain
    signalling traffic, kept like any UDP mapping) or "lease" (`nat_table.lease`); `call_id` and
    `tag` tell owners of one scope apart and may be empty.
    """

    scope: str
    call_id: str = ""
    tag: str = ""


@dataclass(init=False, slots=True)
class Binding:
    """An internal endpoint and the external endpoint that stands for it (RFC 4787 §4.1)."""

    transport: Transport
    internal: Endpoint
    external: Endpoint
    kind: Kind
    created_at: float

    def __init__(
        self,
        transport: Transport,
        internal: Endpoint,
        external: Endpoint,
        kind: Kind,
        created_at: float,
    ) -> None:
        self.transport = transport
        self.internal = internal
        self.external = external
        self.kind = kind
        self.created_at = created_at

    def __hash__(self) -> int:
        return hash(self.internal)


class Permit(NamedTuple):
    """Remotes that a client lets in by itself: a network, "" for all; a port, 0 for all."""

    network: str = ""
    port: int = 0


ANYONE = Permit()


@dataclass(init=False, slots=True)
class Pinhole:
    """One owner's claim on a binding, until `expires_at` (seconds).

    `remotes` are the peers that signalling has named to the owner so far, the latest first: what
    they may do is the filtering policy's. `permits` let remotes in whatever that policy is.
    """

    owner: Owner
    expires_at: float
    remotes: tuple[Endpoint, ...]
    permits: tuple[Permit, ...]

    def __init__(
        self,
        owner: Owner,
        expires_at: float,
        remotes: tuple[Endpoint, ...] = (),
        permits: tuple[Permit, ...] = (),
    ) -> None:
        self.owner = owner
        self.expires_at = expires_at
        self.remotes = remotes
        self.permits = permits

    def __hash__(self) -> int:
        return hash((self.owner, self.expires_at))


# Compiled classes know their simple types only, and msgspec reads rows by these.
vars(Binding)["__annotations__"].update(internal=Endpoint, external=Endpoint)
vars(Pinhole)["__annotations__"].update(
    owner=Owner, remotes=tuple[Endpoint, ...], permits=tuple[Permit, ...]
)


class MediaPair(NamedTuple):
    """The RTP and RTCP bindings of one media stream, made together (RFC 3550 §11)."""

    rtp: Binding
    rtcp: Binding
