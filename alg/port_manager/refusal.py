"""Why a mapping on request is not given: one name for each, whatever way it was asked for.

The control socket carries the `code`; PCP, NAT-PMP and UPnP have a number of their own for each.
"""

from __future__ import annotations


class Refused(Exception):
    """The request is not granted and nothing has changed; the text is one sentence."""

    code = "refused"


class NoResources(Refused):
    """No port is free, or the host has as many mappings, or new ones a second, as it may."""

    code = "no-resources"


class NotAuthorized(Refused):
    """The client may not have this: another's mapping, another host, or what is denied to all."""

    code = "not-authorized"


class UnsupportedTransport(Refused):
    """The transport is none of UDP, TCP and TLS."""

    code = "unsupported-transport"


class InvalidEndpoint(Refused):
    """The endpoint is not one of an internal host, or cannot be mapped."""

    code = "invalid-endpoint"


class CannotProvideExternal(Refused):
    """The client insists on an external port that it cannot have."""

    code = "cannot-provide-external"


class NoMapping(Refused):
    """There is no such mapping, or it is not the client's."""

    code = "no-mapping"


class GatewayFailed(Refused):
    """The kernel did not take it, there is no external address, or the gateway does not answer."""

    code = "gateway-failed"


REFUSALS: dict[str, type[Refused]] = {kind.code: kind for kind in Refused.__subclasses__()}
"""Each by its code."""
