"""TOML and options -> one frozen, validated `Config`.

A key is declared once, in `Config`: its type says what is checked, the description beside the type
is what a user is told is allowed. Values are checked one key at a time, so that whatever is wrong
ends in one sentence that names the file (or the option), the key, what was found and what may
stand there. What no single key can tell is checked last, in `_check_together`.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from alg.static_mapping import StaticMapping
from nat_table.behavior import Behavior
from nat_table.endpoint import is_ipv6, is_unicast, of_one_family

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
StunServer = Annotated[str, Meta(pattern=rf"\A[A-Za-z0-9][A-Za-z0-9.-]{{0,252}}(:{_PORT})?\Z")]
Networks = Annotated[
    tuple[Network, ...],
    Meta(description='a list of addresses or networks, such as ["198.51.100.0/24"]'),
]
Switch = Annotated[bool, Meta(description="true or false")]
Limit = Annotated[int, Meta(ge=1, le=1_000_000, description="a number from 1 to 1000000")]

DEFAULT_CONTROL = "/run/sipnat/control.sock"
DEFAULT_STORE = "/var/lib/sipnat/state.db"

# What concerns the table has its default there, and the pool ends where the fence begins.
_TABLE = Behavior()
LOWEST_POOL_PORT = 1024
HIGHEST_POOL_PORT = _TABLE.fence[0] - 1
MAX_PREFIX6 = 64


class ConfigError(Exception):
    """The configuration cannot be used; the text is one sentence for the user."""


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


_LISTED_ONCE = {"internal": "interface", "external_addresses": "address", "sip_ports": "port"}
_ADDRESSES = ("external_addresses", "media_hosts")
_NETWORKS = ("hands_off", "routed", "servers")
_PREFIXES6 = ("internal_prefix6", "external_prefix6")
_IN_TABLE = re.compile(r"at `\$\[([0-9]+)\](?:\.(\w+))?`$")
_FIELDS = {field.name: field for field in msgspec.structs.fields(Config)}


def load_config(
    path: Path | None = None, overrides: Mapping[str, object] = MappingProxyType({})
) -> Config:
    """Reads the file, lets `overrides` (options, by key) replace its values, and checks them all.

    Raises ConfigError.
    """
    given = _read(path) if path else {}
    for key in given:
        if key not in _FIELDS:
            raise ConfigError(f"{path}: unknown key {_shown(key)}, {_suggestion(key, _FIELDS)}")
    values = given | dict(overrides)
    names = {key: f"{path}: {key}" for key in given} | {key: _option(key) for key in overrides}
    for key, value in values.items():
        _check(names[key], key, value)
    for key, field in _FIELDS.items():
        if field.required and key not in values:
            where = f"{path}: " if path else ""
            raise ConfigError(
                f"{where}{key} is missing: give {_option(key)}, or set the key in a configuration "
                f"file to {_allowed(key)}"
            )
    config = _canonical(msgspec.convert(values, Config), names)
    _check_together(config, names)
    return config


def _of_uplink(path: str, default: str, uplink: int) -> str:
    """Returns "/run/sipnat/control1.sock" for the default of uplink 1."""
    if path != default or not uplink:
        return path
    return str(Path(path).with_stem(f"{Path(path).stem}{uplink}"))


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (at byte {error.start})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error


def _check(name: str, key: str, value: object) -> None:
    try:
        msgspec.convert(value, _FIELDS[key].type)
    except msgspec.ValidationError as error:
        at = _IN_TABLE.search(str(error))
        table = value[int(at[1])] if at is not None and isinstance(value, list) else None
        if at is not None and isinstance(table, dict):
            name, value = f"{name} table {int(at[1]) + 1}", table
            if at[2]:
                name, value = f"{name}: {at[2]}", table[at[2]]
        raise _refusal(name, value, _allowed(key)) from error


def _canonical(config: Config, names: Mapping[str, str]) -> Config:
    """Writes IPv6 addresses in the one way in which they are compared (RFC 5952)."""

    def spelled(key: str, text: str) -> str:
        try:
            if not text or not (is_ipv6(text) or key in _PREFIXES6):
                return text
            if key in _ADDRESSES:
                return str(IPv6Address(text))
            return str(IPv6Network(text, strict=key in _PREFIXES6))
        except ValueError as error:
            raise _refusal(names[key], getattr(config, key), _allowed(key)) from error

    lists = {
        key: tuple(spelled(key, each) for each in getattr(config, key))
        for key in (*_ADDRESSES, *_NETWORKS)
    }
    prefixes = {key: spelled(key, getattr(config, key)) for key in _PREFIXES6}
    return msgspec.structs.replace(config, **lists, **prefixes)


def _check_together(config: Config, names: Mapping[str, str]) -> None:
    low, high = config.pool
    if not LOWEST_POOL_PORT <= low < high <= HIGHEST_POOL_PORT:
        raise _refusal(names["ports"], config.ports, _allowed("ports"))
    for key, what in _LISTED_ONCE.items():
        listed = getattr(config, key)
        if len(set(listed)) < len(listed):
            raise _refusal(names[key], listed, f"each {what} once")
    static = config.static
    internal = {each.socket for each in static}
    external = {(each.transport, each.external) for each in static}
    if not len(internal) == len(external) == len(static):
        shown = [(each.transport, each.internal, each.external) for each in static]
        raise _refusal(names["static"], shown, "each internal and each external endpoint once")
    if config.relay_number > 65535:
        raise _refusal(
            names["relay_port"], config.relay_port, "a port that leaves one for each uplink"
        )
    if any(network.endswith("/0") for network in config.routed):
        raise _refusal(
            names["routed"], config.routed, "what is reached without NAT, not everything"
        )
    given = {key: IPv6Network(value) for key in _PREFIXES6 if (value := getattr(config, key))}
    for key, prefix in given.items():
        if prefix.prefixlen > MAX_PREFIX6:
            raise _refusal(names[key], str(prefix), _allowed(key))
        if {each.prefixlen for each in given.values()} != {prefix.prefixlen} or len(given) < 2:
            allowed = "internal_prefix6 and external_prefix6 of one length, or none of the two"
            raise _refusal(names[key], str(prefix), allowed)
    if config.external_address == "stun" and not config.stun_servers:
        raise _refusal(names["external_address"], "stun", "that only with `stun_servers`")
    if config.external_address != "auto" and len(config.addresses) > 1:
        name, listed = names["external_addresses"], config.external_addresses
        raise _refusal(name, listed, "one address of IPv4 where there is an external_address")
    told = config.external_address
    if told[0].isdigit() and not is_unicast(told):
        raise _refusal(names["external_address"], told, "an address that a host can have")
    if config.external in config.internal:
        raise _refusal(names["external"], config.external, "an interface that is not internal too")


def _refusal(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{name} is {_shown(value)}, allowed is {allowed}")


def _allowed(key: str) -> str:
    """Returns the description that stands beside the key's type."""
    description: str = _FIELDS[key].type.__metadata__[-1].description
    return description


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _suggestion(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"allowed are {', '.join(known)}"


def _shown(value: object) -> str:
    """Renders a value as one short line of ASCII."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
