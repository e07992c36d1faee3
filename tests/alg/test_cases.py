"""Messages by others through the whole gateway; what should happen is worked out line by line.

They are read at the `cases` fixture's folder and are not part of the project. Each test runs over
all of one kind and lists what it did not like, so that one bad case does not hide the next.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from alg.verdict import Outcome, Reason, Verdict
from nat_table.endpoint import Endpoint
from tests.alg.playbook import EXTERNAL, PHONE, Playbook, invite

FINE = (Reason.REWRITTEN, Reason.NOTHING_TO_CHANGE)
IPV4 = re.compile(rb"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9.])")

TOP_VIA = re.compile(rb"(?im)^(?:via|v)[ \t]*:\s*SIP/2\.0/UDP\s+([0-9.]+)(?::[0-9]+)?\s*[;,\r]")

# What a valid torture message says about the host that stands here: nothing else may change.
TORTURE_EDITS = {
    ("bcast.dat", "192.0.2.198"): ["c=", "o="],
    ("esc01.dat", "192.0.2.1"): ["c=", "content-length", "o="],
    ("inv2543.dat", "192.0.2.5"): ["c=", "o="],
    ("longreq.dat", "192.0.2.1"): ["c=", "content-length", "o="],
    ("mpart01.dat", "127.0.0.1"): ["contact", "route", "via"],
    ("mult-ip-in-sdp.dat", "192.0.2.1"): ["c=", "content-length"],
    ("mult-ip-in-sdp-clfixed.dat", "192.0.2.1"): ["c=", "content-length"],
    ("semiuri.dat", "192.0.2.1"): ["via"],
    ("unksm2.dat", "192.0.2.21"): ["via"],
    ("wsinv.dat", "192.0.2.2"): ["via"],
    ("wsinv.dat", "192.0.2.3"): ["content-length", "o="],
    ("wsinv.dat", "192.0.2.4"): ["c=", "content-length"],
    ("wsinv.dat", "192.168.255.111"): ["via"],
}


def index(folder: Path) -> list[dict[str, str]]:
    with (folder / "INDEX.tsv").open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def faults(data: bytes, outcome: Outcome, host: str) -> Iterator[str]:
    """Yields what is wrong with an outcome, whatever the message is."""
    if outcome.reason is Reason.ERROR or outcome.verdict is Verdict.DROPPED:
        yield f"{outcome.reason.value}: {outcome.detail}"
    if not outcome.edits and outcome.payload != data:
        yield "bytes changed without an edit"
    rest, end = outcome.payload, 0
    for edit in outcome.edits:
        before = data[end : edit.start]
        old = data[edit.start : edit.end]
        if not rest.startswith(before + edit.new):
            yield f"bytes before the edit of {edit.what} changed"
        if old not in (host.encode(), b"") and not re.fullmatch(rb":?[0-9]+", old):
            yield f"{edit.what} edits {old!r}"
        rest, end = rest[len(before) + len(edit.new) :], edit.end
    if rest != data[end:]:
        yield "bytes behind the last edit changed"


def test_a03_a08_torture_messages(cases: Path) -> None:
    wrong = []
    seen = set()
    for row in index(cases / "torture"):
        data = (cases / "torture" / row["file"]).read_bytes()
        hosts = {match.decode() for match in IPV4.findall(data)} | {"10.0.0.20"}
        for host in sorted(hosts):
            outcome = Playbook().outbound(data, Endpoint(host, 5060))
            found = list(faults(data, outcome, host))
            seen.add((row["file"], host))
            if row["validity"].startswith("invalid"):
                is_right = outcome.payload == data
            else:
                edited = TORTURE_EDITS.get((row["file"], host), [])
                what = sorted(edit.what for edit in outcome.edits)
                is_right = outcome.reason in FINE and edited == what
            if found or not is_right:
                wrong.append((row["file"], host, outcome, found))
    assert not wrong
    assert TORTURE_EDITS.keys() <= seen


def test_a04_real_messages(cases: Path) -> None:
    wrong = []
    reasons: Counter[Reason] = Counter()
    server = Playbook()
    for row in index(cases / "messages"):
        data = (cases / "messages" / row["file"]).read_bytes()
        top_via = re.search(
            rb"(?im)^(?:via|v)\s*:\s*SIP/2\.0/UDP\s+([0-9.]+)(?::\d+)?\s*[;,\r]", data
        )
        host = top_via[1].decode() if top_via else PHONE.address
        outcome = Playbook().outbound(data, Endpoint(host, 5060))
        reasons[outcome.reason] += 1
        found = list(faults(data, outcome, host))
        is_request = not data.lstrip(b"\r\n").startswith(b"SIP/")
        if outcome.reason in FINE and is_request and top_via:
            own = b"UDP " + EXTERNAL.encode()
            if own not in re.sub(rb"\s+", b" ", outcome.payload):
                found.append("its own Via is not edited")
        found += faults(data, server.inbound(data, Endpoint(host, 5060)), host)
        if found:
            wrong.append((row["file"], outcome.reason.value, found))
    assert not wrong
    assert reasons[Reason.REWRITTEN] > 150


def test_a34_a35_a37_real_session_descriptions(cases: Path) -> None:
    wrong = []
    reasons: Counter[Reason] = Counter()
    for path in sorted((cases / "sdp").glob("*.sdp")):
        body = path.read_bytes()
        for host in described_hosts(body):
            play = Playbook()
            phone = Endpoint(host, 5060)
            message = invite(phone, body)
            outcome = play.outbound(message, phone)
            reasons[outcome.reason] += 1
            found = list(faults(message, outcome, host))
            if outcome.reason in FINE:
                found += description_faults(play, body, outcome.payload, host)
                found += [
                    f"no pinhole for port {port}"
                    for port in own_ports(body, host)
                    if play.binding(f"{host}:{port}") is None
                ]
            elif outcome.payload != message:
                found.append("edited although it was left alone")
            if found:
                wrong.append((path.name, host, outcome.reason.value, found[:3]))
    assert not wrong
    assert reasons[Reason.REWRITTEN] > 1000
    assert sum(reasons.values()) - reasons[Reason.REWRITTEN] < 50


def described_hosts(body: bytes) -> list[str]:
    """Returns the unicast IPv4 addresses that o= and c= lines name."""
    lines = re.findall(rb"(?m)^(?:c=|o=.* )IN IP4 ([0-9]+(?:\.[0-9]+){3})(?=[/ \r\n]|\Z)", body)
    hosts = sorted({line.decode() for line in lines} - {EXTERNAL})
    return [host for host in hosts if 0 < int(host.split(".")[0]) < 224]


def description_faults(play: Playbook, body: bytes, payload: bytes, host: str) -> Iterator[str]:
    """Compares a description line by line with what it should have become."""
    head, _, after = payload.partition(b"\r\n\r\n")
    lengths = re.findall(rb"(?m)^Content-Length: ([0-9]+)", head)
    if lengths != [b"%d" % len(after)]:
        yield f"Content-Length {lengths} of {len(after)}"
    old_lines, new_lines = body.decode("latin-1").split("\n"), after.decode("latin-1").split("\n")
    has_rtcp = False
    for old in old_lines:
        if not new_lines:
            yield "lines are missing"
            return
        new = new_lines.pop(0)
        if new.startswith("a=rtcp:") and not old.startswith("a=rtcp:"):
            new = new_lines.pop(0)  # an RTCP port that could not stay next to RTP
        if old.startswith("m="):
            has_rtcp = not re.match(r"m=\S+ 0+[ /]", old)
        elif old.startswith("c="):
            has_rtcp = has_rtcp and host in old.split("/")[0].split()
        is_left = old == new and old.startswith("a=rtcp:") and not has_rtcp
        is_right = expected_line(old, host) == new or is_mapped_port(play, old, new, host)
        if not is_right and not is_left:
            yield f"{old!r} became {new!r}"
    if new_lines:
        yield f"lines were added: {new_lines}"


def expected_line(line: str, host: str) -> str:
    """Returns the line with the host's address, where it may stand, made external."""
    address = re.escape(host)
    for pattern in (rf"(c=IN IP4 ){address}(?![0-9.])", rf"(o=.* IN IP4 ){address}(?=\s*$)"):
        line = re.sub(rf"^{pattern}", rf"\g<1>{EXTERNAL}", line)
    return re.sub(rf"^(a=rtcp:\d+ IN IP4 ){address}(?=\s*$)", rf"\g<1>{EXTERNAL}", line)


def is_mapped_port(play: Playbook, old: str, new: str, host: str) -> bool:
    """Whether the line differs by nothing but the external port of the host's mapping."""
    match = re.match(r"(?:m=\S+ |a=rtcp:)(\d+)", expected_line(old, host))
    binding = play.binding(f"{host}:{match[1]}") if match and int(match[1]) < 65536 else None
    if match is None or binding is None:
        return False
    line = expected_line(old, host)
    return line[: match.start(1)] + str(binding.external.port) + line[match.end(1) :] == new


def own_ports(body: bytes, host: str) -> list[int]:
    """Returns the ports of the UDP streams whose connection is the host."""
    session, *sections = re.split(rb"(?m)^(?=m=)", body)
    connection = re.compile(rb"(?m)^c=(IN IP[46] [^\s/]+)")
    found = connection.findall(session)
    ports = []
    for section in sections:
        match = re.match(rb"m=\S+ (\d+)(?:/\d+)? (\S+)", section)
        whose = (found + connection.findall(section))[-1:]
        if match and b"TCP" not in match[2].upper() and whose == [b"IN IP4 " + host.encode()]:
            ports.append(int(match[1]))
    return [port for port in ports if port not in (0, 9) and port < 65536]


@pytest.mark.parametrize(
    ("party", "host"), [("Alice", "192.0.2.101"), ("Bob", "192.0.2.201"), ("Bob", "192.0.2.100")]
)
def test_whole_flows(cases: Path, party: str, host: str) -> None:
    """One party is behind the gateway; what it does not see is not shown to it."""
    wrong = []
    damaged = set()
    flows: dict[str, list[dict[str, str]]] = {}
    for row in index(cases / "flows"):
        flows.setdefault(row["file"].partition("/")[0] + row["section"], []).append(row)
    for name, rows in flows.items():
        play = Playbook()
        phone = Endpoint(host, 5060)
        is_over = False
        for row in rows:
            match = re.match(r"F\d+ .*?(\w+) +-> +(\w+)", row["label"])
            if match is None or party not in match.groups():
                continue
            data = (cases / "flows" / row["file"]).read_bytes()
            is_outbound = match[1] == party
            outcome = play.outbound(data, phone) if is_outbound else play.inbound(data, phone)
            own = host if is_outbound else EXTERNAL
            found = list(faults(data, outcome, own))
            if outcome.reason not in FINE:
                damaged.add(row["file"])  # by a page break of the RFC
                found += ["changed all the same"] * (outcome.payload != data)
            if found:
                wrong.append((name, row["label"], outcome.reason.value, found))
            is_bye = re.search(rb"(?m)^CSeq: [0-9]+ BYE", data) is not None
            is_over = is_bye and data.startswith(b"SIP/2.0 200")
            play.wait(0.1)
        before = play.mappings("rtp")
        play.wait(64)
        if (
            is_over
            and not damaged.intersection(row["file"] for row in rows)
            and play.mappings("rtp")
        ):
            wrong.append((name, "media is left", "", [str(before)]))
    assert not wrong
    assert len(damaged) < 20
