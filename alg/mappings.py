"""What stands for what, as the rewriter asks for it: one direction, one message.

`alg.outbound` and `alg.inbound` answer from the table, `alg.outside` for hosts between two NATs.
It is a class to inherit from, and no Protocol: compiled, its methods are called by their place.
"""

from __future__ import annotations

from alg.sdp.session import Media, SessionDescription
from nat_table.endpoint import Endpoint, Transport


class TooComplex(ValueError):
    """A message names its sender, or describes media, more often than any phone does."""


class MalformedSdp(ValueError):
    """A session description says something that cannot be translated."""


class Mapped:
    """An endpoint to write; `is_bare` says that its port is not written if it is the default."""

    __slots__ = ("endpoint", "is_bare")

    def __init__(self, endpoint: Endpoint, is_bare: bool = False) -> None:
        self.endpoint = endpoint
        self.is_bare = is_bare


class Mappings:
    """What stands for what, in one direction, for one message.

    Hosts are in their one spelling (`alg.sip.host`), and what stands for one is of its family.
    `transport` is what the message came by; Vias of another are not this hop's.
    """

    __slots__ = ("transport",)

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def may_name(self, data: bytes, start: int, end: int) -> bool:
        """Whether an address that could be edited occurs in data[start:end]."""
        raise NotImplementedError

    def signalling(
        self, host: bytes, port: int, named: bytes, role: str, is_bare: bool
    ) -> Mapped | None:
        """Returns what stands for a signalling endpoint, None where it is not ours to change.

        `named` is the transport in lower case, b"" where none is named; `role` is the field's name;
        `is_bare` says that the port was not written.
        """
        raise NotImplementedError

    def contact(self, host: bytes, port: int, named: bytes, expires: int | None) -> None:
        """Takes note of a Contact, if its host and port are the phone's."""
        raise NotImplementedError

    def wildcard(self) -> None:
        """Takes note of "Contact: *"."""
        raise NotImplementedError

    def describe(self, session: SessionDescription) -> None:
        """Takes note of a whole session description, before anything in it is asked for."""
        raise NotImplementedError

    def media(self, host: bytes, stream: Media, is_probed: bool) -> tuple[int, int] | None:
        """Returns the RTP and RTCP ports that stand for a stream's; 0 where it has no RTCP.

        A stream of several pairs has them in a row, and the first pair is returned. `is_probed`
        says that the phone has asked a STUN server what its sockets look like from outside.
        """
        raise NotImplementedError

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Returns the port that stands for an RTCP endpoint named apart from its stream."""
        raise NotImplementedError

    def address(self, host: bytes) -> bytes | None:
        """Returns the address that stands for a host in a session description."""
        raise NotImplementedError
