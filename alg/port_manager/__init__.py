"""Mappings on request: for clients that ask the NAT instead of being rewritten."""

from alg.port_manager.mapping import Mapping, PortType, Transport
from alg.port_manager.port_manager import PortManager
from alg.port_manager.refusal import (
    CannotProvideExternal,
    GatewayFailed,
    InvalidEndpoint,
    NoMapping,
    NoResources,
    NotAuthorized,
    Refused,
    UnsupportedTransport,
)

__all__ = [
    "CannotProvideExternal",
    "GatewayFailed",
    "InvalidEndpoint",
    "Mapping",
    "NoMapping",
    "NoResources",
    "NotAuthorized",
    "PortManager",
    "PortType",
    "Refused",
    "Transport",
    "UnsupportedTransport",
]
