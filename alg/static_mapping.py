"""A mapping that the administrator has made: a table [[static]] of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from nat_table.endpoint import TCP, UDP, Endpoint, Socket, is_one_family, parse_endpoint

LOWEST_EXTERNAL = 1024

# Whether it is one is found by parsing; the pattern keeps whatever else it might be out.
_EndpointText = Annotated[str, Meta(pattern=r"\A[0-9A-Fa-f.:\[\]]{2,47}:[0-9]{1,5}\Z")]
_ExternalPort = Annotated[int, Meta(ge=LOWEST_EXTERNAL, le=65535)]


class StaticMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`internal` is "10.0.0.5:8080"; `external` is the port, or "203.0.113.1:8080"."""

    internal: _EndpointText
    external: _EndpointText | _ExternalPort
    transport: Literal["udp", "tcp"]

    def __post_init__(self) -> None:
        """Raises ValueError where the endpoints are none that can be mapped."""
        if not self.internal_endpoint.port or self.external_port < LOWEST_EXTERNAL:
            raise ValueError("a port is too low")
        external = self.external_endpoint
        if external is not None and not is_one_family(self.internal_endpoint, external):
            raise ValueError("the endpoints are of two families")

    @property
    def socket(self) -> Socket:
        """What is mapped."""
        return UDP if self.transport == "udp" else TCP, self.internal_endpoint

    @property
    def internal_endpoint(self) -> Endpoint:
        """The internal endpoint."""
        return parse_endpoint(self.internal)

    @property
    def external_endpoint(self) -> Endpoint | None:
        """The external endpoint, None where it is to be on whatever address the host has."""
        return parse_endpoint(self.external) if isinstance(self.external, str) else None

    @property
    def external_port(self) -> int:
        """The external port."""
        return (
            self.external if isinstance(self.external, int) else parse_endpoint(self.external).port
        )
