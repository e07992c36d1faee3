"""Everything a user can set: each key once, its type, its default, and the words for it.

The type of a key says what is checked, the description beside the type is what a user is told is
allowed. `alg.config_file` reads and checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from alg.static_mapping import StaticMapping
from nat_table.behavior import Behavior
from nat_table.endpoint import of_one_family

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

# A subset of what Linux allows: nothing that nft or iptables would read as syntax or a wildcard.
Interface = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}\Z",
        description="an interface name (at most 15 letters, digits, '.', '_' or '-')",
    ),
]
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
# Whether it is one is checked in `_canonical`; the pattern keeps syntax and zones out.
_IPV6 = "(?=[^:]*:)[0-9A-Fa-f:.]{2,45}"
Address = Annotated[str, Meta(pattern=rf"\A({_IPV4}|{_IPV6})\Z")]
Network = Annotated[
    str, Meta(pattern=rf"\A({_IPV4}(/(3[0-2]|[12]?[0-9]))?|{_IPV6}(/[0-9]{{1,3}})?)\Z")
]
Prefix6 = Annotated[
    str,
    Meta(
        pattern=r"\A([0-9A-Fa-f:.]{2,45}/[0-9]{1,3})?\Z",
        description='an IPv6 prefix of at most 64 bits, such as "fd00:1::/48", or "" for none',
    ),
]
Port = Annotated[int, Meta(ge=1, le=65535, description="a port from 1 to 65535")]
Ports = Annotated[tuple[Port, ...], Meta(description="a list of ports from 1 to 65535")]
Timeout = Annotated[float, Meta(ge=1, le=604800, description="seconds, from 1 to 604800")]
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_SERVER = rf"[A-Za-z0-9][A-Za-z0-9.-]{{0,252}}(:{_PORT})?"
HostName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,252}\Z")]
StunServer = Annotated[str, Meta(pattern=rf"\A{_SERVER}\Z")]
Networks = Annotated[
    tuple[Network, ...],
    Meta(description='a list of addresses or networks, such as ["198.51.100.0/24"]'),
]
Switch = Annotated[bool, Meta(description="true or false")]
Limit = Annotated[int, Meta(ge=1, le=1_000_000, description="a number from 1 to 1000000")]

DEFAULT_CONFIG = "/etc/sipnat/sipnat.toml"
DEFAULT_CONTROL = "/run/sipnat/control.sock"
DEFAULT_STORE = "/var/lib/sipnat/state.db"

# What concerns the table has its default there, and the pool ends where the fence begins.
_TABLE = Behavior()
LOWEST_POOL_PORT = 1024
HIGHEST_POOL_PORT = _TABLE.fence[0] - 1
MAX_PREFIX6 = 64


class Http(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where metrics and the status page are served; nowhere if `listen` is "".

    `names` are hosts by which they may be asked for, beside addresses and this machine's own name.
    """

    listen: Annotated[
        str,
        Meta(
            pattern=rf"\A(({_IPV4}|\[{_IPV6}\]):{_PORT})?\Z",
            description='an address and a port, such as "127.0.0.1:9570", or "" for none',
        ),
    ] = ""
    names: Annotated[
        tuple[HostName, ...],
        Meta(description='a list of host names, such as ["router.example.com"]'),
    ] = ()
    users: Switch = False


class Hep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which HEP collector is sent every message; none if `server` is ""."""

    server: Annotated[
        str,
        Meta(
            pattern=rf"\A({_SERVER})?\Z",
            description='a HEP collector, such as "homer.example.com:9060", or "" for none',
        ),
    ] = ""
    id: Annotated[int, Meta(ge=1, le=4294967295, description="a number from 1 to 4294967295")] = (
        2001
    )
    password: Annotated[
        str, Meta(max_length=255, description="a text of at most 255 characters")
    ] = ""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a user can set; the field names are the keys of the file."""

    internal: Annotated[
        tuple[Interface, ...],
        Meta(min_length=1, description='a list of interface names, such as ["lan0"]'),
    ]
    external: Interface
    external_addresses: Annotated[
        tuple[Address, ...],
        Meta(description="a list of addresses of the external interface"),
    ] = ()
    external_address: Annotated[
        str,
        Meta(
            pattern=rf"\A(auto|stun|pcp|{_IPV4})\Z",
            description='"auto", "stun", "pcp" or an IPv4 address',
        ),
    ] = "auto"
    stun_servers: Annotated[
        tuple[StunServer, ...],
        Meta(description='a list of STUN servers, such as ["stun.example.com:3478"]'),
    ] = ()
    uplink: Annotated[int, Meta(ge=0, le=2, description="a number from 0 to 2")] = 0
    control: Annotated[
        str,
        # The 108 bytes of sun_path, less the closing zero.
        Meta(pattern=r"\A[ -~]{1,107}\Z", description="a path of at most 107 ASCII characters"),
    ] = DEFAULT_CONTROL
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description='"debug", "info", "warning" or "error"'),
    ] = "info"
    sip_ports: Annotated[
        tuple[Port, ...],
        Meta(min_length=1, description="a list of at least one port from 1 to 65535"),
    ] = (5060,)
    tcp: Switch = True
    relay_port: Port = 15060
    max_connections: Limit = 20000
    tcp_media: Switch = False
    tls_ports: Ports = (5061,)
    mode6: Annotated[
        Literal["auto", "pinhole", "nat66", "nptv6", "off"],
        Meta(description='"auto", "pinhole", "nat66", "nptv6" or "off"'),
    ] = "auto"
    internal_prefix6: Prefix6 = ""
    external_prefix6: Prefix6 = ""
    ports: Annotated[
        str,
        Meta(
            pattern=r"\A[0-9]{4,5}-[0-9]{4,5}\Z",
            description=f'a range "LOW-HIGH" within {LOWEST_POOL_PORT}-{HIGHEST_POOL_PORT}',
        ),
    ] = "{}-{}".format(*_TABLE.pool)
    deny_ports: Ports = ()
    media_hosts: Annotated[
        tuple[Address, ...],
        Meta(description='a list of addresses, such as ["192.168.1.5"]'),
    ] = ()
    hands_off: Networks = ()
    routed: Networks = ()
    signalling_filter: Annotated[
        Literal["address-dependent", "endpoint-independent"],
        Meta(description='"address-dependent" or "endpoint-independent"'),
    ] = "address-dependent"
    servers: Networks = ()
    media_filter: Annotated[
        Literal["endpoint-independent", "address-dependent", "latch"],
        Meta(description='"endpoint-independent", "address-dependent" or "latch"'),
    ] = "endpoint-independent"
    direct_media: Switch = True
    queue: Annotated[int, Meta(ge=0, le=65535, description="a number from 0 to 65535")] = 5060
    on_failure: Annotated[Literal["pass", "hold"], Meta(description='"pass" or "hold"')] = "pass"
    install_accept: Annotated[Literal["none", "auto"], Meta(description='"none" or "auto"')] = (
        "none"
    )
    on_address_change: Annotated[Literal["move", "drop"], Meta(description='"move" or "drop"')] = (
        "move"
    )
    store: Annotated[
        str,
        Meta(pattern=r"\A[ -~]{0,1000}\Z", description='a path, or "" for none'),
    ] = DEFAULT_STORE
    flow_timeout: Timeout = _TABLE.flow_timeout
    registration_timeout: Timeout = 3600.0
    ringing_timeout: Timeout = 300.0
    idle_call_timeout: Timeout = 7200.0
    quarantine_timeout: Timeout = _TABLE.quarantine_timeout
    max_message_size: Annotated[
        int, Meta(ge=1024, le=65535, description="a number of bytes from 1024 to 65535")
    ] = 65535
    max_mappings: Limit = _TABLE.max_mappings
    max_mappings_per_host: Limit = _TABLE.max_mappings_per_host
    max_new_mappings_per_second: Limit = _TABLE.max_new_per_second
    max_calls_per_host: Limit = 1024
    max_unanswered_per_host: Limit = 256
    max_registrations_per_host: Limit = 1024
    max_media_streams: Annotated[int, Meta(ge=1, le=64, description="a number from 1 to 64")] = 64
    max_packets_per_source: Limit = 1000
    pcp: Switch = True
    upnp: Switch = False
    secure_mode: Switch = True
    max_lease: Timeout = 86400.0
    max_requests_per_host: Limit = 50
    watch_media: Switch = True
    trace_megabytes: Annotated[int, Meta(ge=0, le=1024, description="a number from 0 to 1024")] = 16
    log_format: Annotated[
        Literal["auto", "text", "json", "journal"],
        Meta(description='"auto", "text", "json" or "journal"'),
    ] = "auto"
    sip_echo: Annotated[
        str,
        Meta(
            pattern=rf"\A({_SERVER})?\Z",
            description='a SIP echo server, such as "echo.example.com:5060", or "" for none',
        ),
    ] = ""
    http: Annotated[Http, Meta(description="a table [http] with listen, names and users")] = Http()
    hep: Annotated[Hep, Meta(description="a table [hep] with server, id and password")] = Hep()
    static: Annotated[
        tuple[StaticMapping, ...],
        Meta(
            description='tables [[static]], each with internal = "ADDRESS:PORT", external = a '
            'port from 1024 to 65535 or "ADDRESS:PORT", and transport = "udp" or "tcp"'
        ),
    ] = ()

    @property
    def pool(self) -> tuple[int, int]:
        """Returns the first and the last port of `ports`."""
        low, _, high = self.ports.partition("-")
        return int(low), int(high)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Returns the IPv4 addresses of `external_addresses`."""
        return of_one_family(self.external_addresses, of_ipv6=False)

    @property
    def addresses6(self) -> tuple[str, ...]:
        """Returns the IPv6 addresses of `external_addresses`."""
        return of_one_family(self.external_addresses, of_ipv6=True)

    @property
    def queue_number(self) -> int:
        """Returns the number of the queue, one further for each uplink."""
        return self.queue + self.uplink

    @property
    def relay_number(self) -> int:
        """Returns the port of the relay, one further for each uplink; 0 where there is none."""
        return self.relay_port + self.uplink if self.tcp else 0

    @property
    def control_path(self) -> str:
        """Returns where the control socket is; by default each uplink has its own."""
        return _of_uplink(self.control, DEFAULT_CONTROL, self.uplink)

    @property
    def store_path(self) -> str:
        """Returns where the store is; by default each uplink has its own."""
        return _of_uplink(self.store, DEFAULT_STORE, self.uplink)


def _of_uplink(path: str, default: str, uplink: int) -> str:
    """Returns "/run/sipnat/control1.sock" for the default of uplink 1."""
    if path != default or not uplink:
        return path
    return str(Path(path).with_stem(f"{Path(path).stem}{uplink}"))
