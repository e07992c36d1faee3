"""What a client asks the port manager for, and what it gets."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nat_table.endpoint import Endpoint


class Transport(enum.StrEnum):
    """How a client's traffic travels; TLS is TCP that nobody looks into."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class PortType(enum.StrEnum):
    """What a client uses a port for."""

    SIP = "sip"
    RTP = "rtp"
    RTCP = "rtcp"


@dataclass(frozen=True, slots=True)
class Mapping:
    """The endpoint that a client binds its socket to, and the one that it writes into messages."""

    internal: Endpoint
    external: Endpoint
    transport: Transport = Transport.UDP
