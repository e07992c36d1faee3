"""TOML and options -> one frozen, validated `Config`.

Values are checked one key at a time, so that whatever is wrong ends in one sentence that names the
file (or the option), the key, what was found and what may stand there. What no single key can tell
is checked last, in `_check_together`.
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
from typing import Any, get_type_hints

import msgspec

from alg.config import HIGHEST_POOL_PORT, LOWEST_POOL_PORT, MAX_PREFIX6, Config, Hep, Http
from nat_table.endpoint import is_ipv6, is_unicast


class ConfigError(Exception):
    """The configuration cannot be used; the text is one sentence for the user."""


_LISTED_ONCE = {"internal": "interface", "external_addresses": "address", "sip_ports": "port"}
_ADDRESSES = ("external_addresses", "media_hosts")
_NETWORKS = ("hands_off", "routed", "servers")
_PREFIXES6 = ("internal_prefix6", "external_prefix6")
_IN_TABLES = re.compile(r"at `\$\[([0-9]+)\](?:\.(\w+))?`$")
_IN_TABLE = re.compile(r"at `\$\.(\w+)`$")
_TABLES = {"http": Http, "hep": Hep}
_FIELDS = {field.name: field for field in msgspec.structs.fields(Config)}


def load_config(
    path: Path | None = None, overrides: Mapping[str, object] = MappingProxyType({})
) -> Config:
    """Reads the file, lets `overrides` (options, by key) replace its values, and checks them all.

    Raises ConfigError.
    """
    given = parse_config(path, read_config(path)) if path else {}
    return check_config(path, given, overrides)


def check_config(
    path: Path | None, given: Mapping[str, object], overrides: Mapping[str, object]
) -> Config:
    """Checks what a file says, with the options in its place; raises ConfigError."""
    for key in given:
        if key not in _FIELDS:
            raise ConfigError(f"{path}: unknown key {_shown(key)}, {_suggestion(key, _FIELDS)}")
    values = {**given, **overrides}
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


def read_config(path: Path) -> str:
    """Returns the text of a file, its ends of lines as they are; raises ConfigError."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (at byte {error.start})") from error


def parse_config(path: Path, text: str) -> dict[str, object]:
    """Returns what a text says, unchecked; raises ConfigError where it is not TOML."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error


def reload_config(path: Path | None, overrides: Mapping[str, object]) -> Config:
    """Reads it again while packets wait: what is no file might never be read to its end.

    Raises ConfigError.
    """
    if path is not None and path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is no regular file, so it is not read again")
    return load_config(path, overrides)


def _check(name: str, key: str, value: object) -> None:
    try:
        msgspec.convert(value, _FIELDS[key].type)
    except msgspec.ValidationError as error:
        inside = _IN_TABLE.search(str(error))
        if inside is not None and isinstance(value, dict):
            allowed = _description(get_type_hints(_TABLES[key], include_extras=True)[inside[1]])
            raise _refusal(f"{name}.{inside[1]}", value[inside[1]], allowed) from error
        at = _IN_TABLES.search(str(error))
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
    return _description(_FIELDS[key].type)


def _description(annotated: Any) -> str:
    description: str = annotated.__metadata__[-1].description
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
