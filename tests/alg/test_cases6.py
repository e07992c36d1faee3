"""Messages by others that name IPv6 hosts, through the whole gateway, each host being the phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

from alg.sip.host import unicast_address
from alg.sip.span import apply_edits
from alg.verdict import Reason, Verdict
from nat_table.endpoint import Endpoint
from tests.alg.playbook import EXTERNAL6, Playbook, invite
from tests.alg.test_cases import FINE

_ADDRESS = re.compile(rb"[0-9A-Fa-f]*(?:::?[0-9A-Fa-f]+)+")

# RFC 5118: what a message says about the host that stands here, and nothing else may change.
EDITS = {
    ("ipv6-good.dat", "2001:db8::1"): ["contact"],
    ("ipv6-good.dat", "2001:db8::9:1"): ["via"],
    ("ipv6-in-sdp-clfixed.dat", "2001:db8::20"): ["c=", "contact", "content-length", "o=", "via"],
    ("ipv6-in-sdp.dat", "2001:db8::20"): ["c=", "contact", "content-length", "o=", "via"],
    ("mult-ip-in-sdp-clfixed.dat", "2001:db8::1"): ["c=", "content-length"],
    ("mult-ip-in-sdp-clfixed.dat", "2001:db8::9:1"): ["contact", "via"],
    ("mult-ip-in-sdp.dat", "2001:db8::1"): ["c=", "content-length"],
    ("mult-ip-in-sdp.dat", "2001:db8::9:1"): ["contact", "via"],
    ("port-ambiguous.dat", "2001:db8::1"): ["contact"],
    ("port-ambiguous.dat", "2001:db8::9:1"): ["via"],
    ("via-received-param-with-delim.dat", "2001:db8::9:1"): ["via"],
}


def hosts(data: bytes) -> list[str]:
    """Returns the unicast IPv6 addresses in a message."""
    found = {unicast_address(text.lower()) for text in _ADDRESS.findall(data)}
    return sorted(host for host in found if host and ":" in host)


def messages(cases: Path) -> Iterator[tuple[str, bytes, str]]:
    """Yields file name, message and host, of every message and host."""
    for path in sorted((*cases.glob("torture/*.dat"), *cases.glob("messages/*.sip"))):
        data = path.read_bytes()
        yield from ((path.name, data, host) for host in hosts(data))
    for path in sorted(cases.glob("sdp/*.sdp")):
        body = path.read_bytes()
        yield from ((path.name, invite(Endpoint(host, 5060), body), host) for host in hosts(body))


def test_a59_messages_with_ipv6_are_edited_where_they_name_the_phone(cases: Path) -> None:
    wrong, seen, rewritten = [], set(), 0
    for name, data, host in messages(cases):
        seen.add((name, host))
        outcome = Playbook(mode6="nat66").outbound(data, Endpoint(host, 5060))
        rewritten += outcome.reason is Reason.REWRITTEN
        is_right = apply_edits(data, outcome.edits) == outcome.payload
        for edit in outcome.edits:
            old = data[edit.start : edit.end].strip(b"[]").decode()
            is_right &= old.lstrip(":").isdecimal() or str(IPv6Address(old)) == host
            is_right &= EXTERNAL6.encode() in edit.new or edit.new.lstrip(b":").isdigit()
        if name.endswith(".dat") and outcome.reason in FINE:
            edited = sorted(edit.what for edit in outcome.edits)
            is_right &= edited == EDITS.get((name, host), [])
        is_right &= outcome.verdict is not Verdict.DROPPED and outcome.reason is not Reason.ERROR
        if not is_right:
            wrong.append((name, host, outcome))
    assert not wrong
    assert EDITS.keys() <= seen
    assert rewritten > 40


def test_a59_no_byte_of_a_routed_message_changes(cases: Path) -> None:
    for name, data, host in messages(cases):
        outcome = Playbook(mode6="pinhole").outbound(data, Endpoint(host, 5060))
        assert (outcome.payload, outcome.edits) == (data, ()), (name, host)
