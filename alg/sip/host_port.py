"""A host and a port as somebody has written them, in a Via or in a URI.

Where they stand is counted from wherever the reader began, so what was read in a header line once
holds wherever the same line stands again.
"""

from __future__ import annotations

from typing import Final

from alg.sip.host import canonical_host

MAX_PORT: Final = 65535


class HostPort:
    """Where host and port stand, and what they are: the host in its one spelling (`alg.sip.host`).

    Without a port, which `is_bare` says, it is the default one, and its place is where it would
    stand. One beyond 65535 is for the reader to refuse.
    """

    __slots__ = ("host", "host_end", "host_start", "is_bare", "port", "port_end", "port_start")

    host: bytes
    port: int
    host_start: int
    host_end: int
    port_start: int
    port_end: int
    is_bare: bool

    def __init__(
        self, data: bytes, host: tuple[int, int], port: tuple[int, int], default_port: int
    ) -> None:
        """Takes the spans of both; that of a port which is not written begins at -1."""
        host_start, host_end = host
        port_start, port_end = port
        self.is_bare = port_start < 0
        if self.is_bare:
            self.port = default_port
            port_start = port_end = host_end
        else:
            self.port = int(data[port_start:port_end])
        self.host = canonical_host(data[host_start:host_end])
        self.host_start, self.host_end = host_start, host_end
        self.port_start, self.port_end = port_start, port_end
