"""UPnP on each internal interface, where it is wanted: the one place that imports its library."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from alg.config import Config
from alg.port_manager.leases import Leases
from rules.interfaces import NoAddress, external_addresses, is_reached_by

if TYPE_CHECKING:
    from alg.port_manager.upnp import UpnpServer

log = logging.getLogger("sipnat")


def upnp_servers(config: Config, leases: Leases) -> list[tuple[str, UpnpServer]]:
    """Returns a server for each internal interface that has an address, with what to call it."""
    try:
        # Half a second and 15 MB, for those who want it.
        from alg.port_manager.igd import PortMappings
        from alg.port_manager.upnp import UpnpServer
    except ImportError as error:
        log.warning("UPnP is not served: %s; pip install 'sipnat[upnp]'", error)
        return []
    mappings = PortMappings(leases, is_secure=config.secure_mode)
    servers = []
    for interface in config.internal:
        what = f"UPnP on {interface}"
        try:
            address = external_addresses(interface)[0]
        except NoAddress as error:
            log.warning("%s is not served: %s", what, error)
        else:
            limit = config.max_requests_per_host
            is_behind = partial(is_reached_by, (interface,))
            servers.append((what, UpnpServer(interface, address, mappings, limit, is_behind)))
    return servers
