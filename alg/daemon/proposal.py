"""A configuration proposed for this router: which keys it needs, and why.

What the file sets stays as it is, unless options say otherwise; only interfaces that can carry no
packets are replaced. What the defaults would do wrong is found by the doctor, with the
configuration as it is to be: the cures that are keys are taken, the others are left to be done.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypedDict

from alg.config import Config
from alg.config_file import ConfigError, check_config
from alg.config_text import Setting
from alg.daemon import neighbours
from alg.daemon.claim import is_claimed
from alg.daemon.doctor import FindingRow, examine
from alg.daemon.settings import StartError, kernel_settings
from nat_table.endpoint import is_private
from rules.doctor.owners import KNOWN, firewall_names
from rules.doctor.reading import read_firewall
from rules.interfaces import InterfaceMissing
from rules.links import read_default_routes, read_links
from rules.programs import ProgramFailed
from rules.roles import PRIVATE, UPLINK, UPLINK_TOO, NoRoles, Part, choose_roles, is_notable

_CURING_KEYS = ("install_accept", "queue", "ports", "relay_port", "pcp", "upnp")
"""Keys whose value in a cure is right for this very router; other cures show examples."""


class NoProposal(Exception):
    """Nothing fits this router; the message is one sentence."""


class LinkRow(TypedDict):
    """A link, as the command line shows it; `role` is "external", "internal" or ""."""

    name: str
    addresses: tuple[str, ...]
    role: str
    what: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was found here, the keys that are to be set, and what remains to be known and done."""

    links: list[LinkRow]
    firewalls: list[str]
    mode6: str
    settings: dict[str, Setting]
    remarks: list[str]
    findings: list[FindingRow]
    uplink: int
    is_running: bool
    fault: str
    """Why `sipnat run` does not take the file all the same; "" where it does."""


def propose(path: Path, given: Mapping[str, object], options: Mapping[str, object]) -> Proposal:
    """Returns what to configure; `given` is what the file says. Raises NoProposal, ConfigError."""
    known = {key: value for key, value in given.items() if key in Config.__struct_fields__}
    try:
        parts = _parts(known, options)
        settings = _interfaces(parts, known)
        if (number := _uplink_of(path)) and "uplink" not in known:
            settings["uplink"] = Setting(number, "one of several uplinks")
        config = _checked(path, known, settings)
        kernel = kernel_settings(config)
    except (InterfaceMissing, NoRoles, StartError) as error:
        raise NoProposal(str(error)) from error
    firewalls = _firewalls()
    remarks = [*_remarks_on_links(path, parts), *_remarks_on_keys(given, settings)]
    remarks += map(neighbours.remark_on_server, neighbours.sip_servers(config))
    for key, wanted in neighbours.settings_beside(config).items():
        if key in known:
            remarks.append(f"{wanted.why}; the file's own {key} stays, {wanted.value} would fit")
        else:
            settings[key] = wanted
    findings = []
    for row in examine(_checked(path, known, settings)):
        cure = _cure(row, firewalls)
        settings |= {key: each for key, each in cure.items() if key not in known}
        is_cured = any(known.get(key, each.value) == each.value for key, each in cure.items())
        if row["level"] != "ok" and not is_cured:
            findings.append(row)
        elif row["check"] == "double-nat" and is_private(kernel.external_addresses[0]):
            remarks.append(f"another NAT is above: {row['text']}")
    if fault := _fault(path, given, settings):
        remarks.append(f"sipnat run does not take this file: {fault}")
    links = [_row(part) for part in parts if part.role or is_notable(part.link)]
    return Proposal(
        links,
        firewalls,
        kernel.mode6.value,
        settings,
        remarks,
        findings,
        kernel.uplink,
        is_claimed(kernel.table),
        fault,
    )


def _uplink_of(path: Path) -> int:
    """Returns the number that a file for a further uplink has in its name, otherwise 0."""
    named = re.fullmatch(r"sipnat([12])\.toml", path.name)
    return int(named[1]) if named else 0


def _parts(given: Mapping[str, object], options: Mapping[str, object]) -> list[Part]:
    """Returns who plays which part; raises InterfaceMissing, NoRoles."""
    links = {link.name: link for link in read_links()}
    internal, external = _names(options.get("internal")), _names(options.get("external"))
    for name in (*internal, *external):
        if name not in links:
            raise InterfaceMissing(name)
    internal = internal or [name for name in _names(given.get("internal")) if name in links]
    external = external or [
        name for name in _names(given.get("external")) if name in links and links[name].addresses
    ]
    routes = read_default_routes()
    return choose_roles(list(links.values()), routes, internal, next(iter(external), ""))


def _row(part: Part) -> LinkRow:
    link = part.link
    held = [str(each) for each in (*link.addresses, *link.addresses6)]
    if link.is_leased:
        held[0] += " (DHCP)"
    carrier = ", no carrier" if link.is_up and not link.has_carrier else ""
    return {
        "name": link.name,
        "addresses": tuple(held),
        "role": part.role,
        "what": part.what + carrier,
    }


def _names(value: object) -> list[str]:
    """Returns the interfaces of a key as somebody wrote it, which may be anything."""
    named = value if isinstance(value, list) else [value]
    return [each for each in named if isinstance(each, str)]


def _interfaces(parts: list[Part], given: Mapping[str, object]) -> dict[str, Setting]:
    """Returns the keys of the interfaces, where the file says something else."""
    inside = [part.link for part in parts if part.role == "internal"]
    (outside,) = (part for part in parts if part.role == "external")
    networks = [str(address.network) for link in inside for address in link.addresses]
    settings = {}
    if sorted(link.name for link in inside) != sorted(_names(given.get("internal"))):
        settings["internal"] = Setting([link.name for link in inside], ", ".join(networks))
    if given.get("external") != outside.link.name:
        settings["external"] = Setting(outside.link.name, outside.what)
    return settings


def _checked(path: Path, given: Mapping[str, object], settings: Mapping[str, Setting]) -> Config:
    return check_config(path, given, {key: each.value for key, each in settings.items()})


def _cure(row: FindingRow, firewalls: list[str]) -> dict[str, Setting]:
    """Returns the keys that cure what the doctor has found."""
    lines = tomllib.loads("\n".join(row["configuration"]))
    known = ", ".join(each for each in firewalls if each in KNOWN)
    why = {"install_accept": f"lets calls through {known}"} if known else {}
    return {
        key: Setting(value, why.get(key, row["text"]))
        for key, value in lines.items()
        if key in _CURING_KEYS
    }


def _firewalls() -> list[str]:
    try:
        return firewall_names(read_firewall())
    except ProgramFailed:
        return []


def _remarks_on_links(path: Path, parts: list[Part]) -> Iterator[str]:
    (outside,) = (part for part in parts if part.role == "external")
    inside = [part.link.name for part in parts if part.role == "internal"]
    external, addresses = outside.link.name, outside.link.addresses
    if len(addresses) > 1:
        yield (
            f"{external} has {len(addresses)} addresses, and {addresses[0].ip} stands for the "
            "phones unless external_addresses names another"
        )
    is_first, further = not _uplink_of(path), count(1)
    for part in parts:
        name = part.link.name
        if part.what == UPLINK and not part.role and is_first:
            yield f"the default route leaves by {name}: --external {name} takes it for {external}"
        elif part.what == UPLINK_TOO and not part.role and is_first:
            file = path.with_name(f"sipnat{next(further)}.toml")
            yield (
                f"{name} is an uplink too, and needs a sipnat of its own: "
                f"sipnat setup --config {file} --external {name}"
            )
        elif part.what == PRIVATE and not part.role:
            both = " ".join(f"--internal {each}" for each in (*inside, name))
            yield f"phones behind {name} are not served: {both}"


def _fault(path: Path, given: Mapping[str, object], settings: Mapping[str, Setting]) -> str:
    try:
        _checked(path, given, settings)
    except ConfigError as error:
        return str(error)
    return ""


def _remarks_on_keys(given: Mapping[str, object], settings: Mapping[str, Setting]) -> Iterator[str]:
    if settings and "on_failure" not in given:
        yield (
            "while the gateway is down SIP passes as it is, so that calls may lack audio; with "
            'on_failure = "hold" phones wait for it instead'
        )
