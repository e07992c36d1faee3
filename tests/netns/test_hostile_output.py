"""What strangers write, in every output: terminal escapes, markup, and 60 kB in one field.

A phone and a server put it into every text of a registration and a call that stand. Nothing of it
may move a cursor, hide or reorder text, break a JSON row, a metric or a picture, or fill a screen.
The page in a browser is tested in test_status_page.py.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.alg.terminal import on_terminal
from tests.lab.agents import wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.network import EXTERNAL, PHONE_1, SERVER, Network
from tests.lab.site import PROXY
from tests.netns.browser import LISTEN

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj\u2066\x08\x7f\x00"
MARKUP = "<script>alert(1)</script><img/src=x/onerror=alert(2)>\"'&amp;[bold]{{x}}%s"
LONG = "L" * 60_000
USER = "+15551234567"
LONGEST_LINE = 2000
PATIENCE = 10.0
MOST_ASKED = 4000
"""A longer Call-ID does not fit into a request."""


# What the call consists of: its Call-ID, the display names, and the User-Agent.
CASES = {
    "escapes in names": ("escapes@10.0.0.20", ESCAPES, ESCAPES),
    "escapes in the Call-ID": ("\u202e\x1b[2J\x9b31m@10.0.0.20", "x", "x"),
    "markup": (MARKUP, MARKUP.replace('"', ""), MARKUP),
    "a long Call-ID": (LONG, "x", "x"),
    "a long display name": ("long-name", LONG, "x"),
    "a long User-Agent": ("long-agent", "x", LONG),
}

SHOWN = (
    *(("show", what) for what in ("calls", "mappings", "registrations", "connections")),
    *(("show", what) for what in ("reasons", "limits", "kernel", "upstream")),
    ("show", "calls", "--users", "--ended"),
    ("show", "registrations", "--users"),
    ("show", "mappings", "--counters"),
    ("why", "--internal", PHONE_1),
    ("trace", "--recent", "--count", "4"),
    ("trace", "--recent", "--count", "4", "--full"),
    ("map", "list"),
    ("status",),
)

pytestmark = [
    pytest.mark.netns,
    pytest.mark.timeout(300),
    pytest.mark.configured(http={"listen": LISTEN, "users": True}, log_format="text"),
]


@pytest.fixture
def call_ids(network: Network, gateway: Gateway) -> Iterator[list[str]]:
    """Yields the Call-IDs of hostile calls that are up, of phones that are registered."""
    with ExitStack() as stack:
        server = stack.enter_context(network.wan.udp_socket(SERVER, 5060))
        server.settimeout(PATIENCE)
        for number, (call_id, name, agent) in enumerate(CASES.values()):
            port = 5060 + 10 * number
            phone = stack.enter_context(network.lan.udp_socket(PHONE_1, port))
            phone.settimeout(PATIENCE)
            for method in ("REGISTER", "INVITE"):
                phone.sendto(hostile(method, port, call_id, name, agent), PROXY)
                asked, source = server.recvfrom(65536)
                server.sendto(answer(asked, name, agent), source)
                assert phone.recv(65536).startswith(b"SIP/2.0 200 ")
        yield [call_id for call_id, _, _ in CASES.values()]


def hostile(method: str, port: int, call_id: str, name: str, agent: str) -> bytes:
    body = (
        f"v=0\r\no=- 1 1 IN IP4 {PHONE_1}\r\ns={name[:200]}\r\nc=IN IP4 {PHONE_1}\r\nt=0 0\r\n"
        f"m=audio {port + 2} RTP/AVP 0\r\n"
    ).encode()
    content = "Content-Type: application/sdp\r\n"
    if method == "REGISTER":
        body, content, call_id = b"", "Expires: 600\r\n", f"register-{call_id}"[:59_000]
    to = "x" if len(name) > LONGEST_LINE else name
    head = (
        f"{method} sip:{SERVER} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {PHONE_1}:{port};branch=z9hG4bK{method};rport\r\nMax-Forwards: 70\r\n"
        f'From: "{name}" <sip:{USER}@{SERVER}>;tag=a\r\nTo: "{to}" <sip:{USER}@{SERVER}>\r\n'
    )
    rest = (
        f"Call-ID: {call_id}\r\nCSeq: 1 {method}\r\nContact: <sip:{USER}@{PHONE_1}:{port}>\r\n"
        f"User-Agent: {agent}\r\n{content}Content-Length: {len(body)}\r\n\r\n"
    )
    return f"{head}{rest}".encode() + body


def answer(raw: bytes, name: str, agent: str) -> bytes:
    """Renders the 200 to a request as it came, with a hostile phrase."""
    kept = re.findall(rb"^(?:Via|From|To|Call-ID|CSeq|Contact):[^\n]*\n", raw, re.MULTILINE)
    head = b"".join(kept).replace(b"\r\nCall-ID", b";tag=b\r\nCall-ID", 1)
    body = (
        f"v=0\r\no=- 1 1 IN IP4 {SERVER}\r\ns=-\r\nc=IN IP4 {SERVER}\r\nt=0 0\r\n"
        "m=audio 40000 RTP/AVP 0\r\n"
    ).encode()
    if b"CSeq: 1 REGISTER" in raw:
        return b"SIP/2.0 200 OK\r\n" + head + b"Expires: 600\r\nContent-Length: 0\r\n\r\n"
    rest = f"Server: {agent[:200]}\r\nContent-Type: application/sdp\r\n"
    first = f"SIP/2.0 200 {name[:200]}\r\n".encode()
    return first + head + f"{rest}Content-Length: {len(body)}\r\n\r\n".encode() + body


def check_text(text: str) -> None:
    """Checks that a text moves no cursor, hides nothing, and fills no screen."""
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line[:200])
        assert len(line) <= LONGEST_LINE


def check_terminal(text: str) -> None:
    """Checks the same of what a terminal gets, where colours may be."""
    check_text(re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r\n", "\n"))


def test_commands_print_nothing_hostile(gateway: Gateway, call_ids: list[str]) -> None:
    calls = json.loads(gateway.ask("show", "calls", "--json"))
    assert {row["call_id"] for row in calls} == set(call_ids), "the calls are up"
    for command in SHOWN:
        check_text(gateway.ask(*command))
        check_terminal(on_terminal(*command, "--control", gateway.control))
        printed = gateway.ask(*command, "--json")
        assert printed.isascii()
        for row in printed.splitlines() if command[0] == "trace" else [printed]:
            json.loads(row)


def test_what_is_asked_of_one_call_is_harmless(gateway: Gateway, call_ids: list[str]) -> None:
    for call_id in call_ids:
        if len(call_id) < MOST_ASKED:
            for command in ("why", "ladder"):
                check_text(gateway.ask(command, call_id))
                check_terminal(on_terminal(command, call_id, "--control", gateway.control))
            check_picture(gateway.ask("ladder", call_id, "--svg", "-"))
            check_text(gateway.ask("drop", call_id))
    check_text(gateway.ask("flush"))


def check_picture(svg: str) -> None:
    """Checks that a picture is only shapes and text."""
    assert all(c.isprintable() or c == "\n" for c in svg)
    for element in ElementTree.fromstring(svg).iter():
        assert element.tag.startswith("{http://www.w3.org/2000/svg}")
        assert not element.tag.endswith(("script", "foreignObject", "image", "use", "a"))
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on") and "href" not in name
            assert "javascript:" not in value and "url(http" not in value


def test_metrics_pages_and_captures_carry_it_harmlessly(
    network: Network, gateway: Gateway, call_ids: list[str], tmp_path: Path
) -> None:
    def fetch(path: str) -> str:
        return network.router.run("curl", "-sS", "--fail-with-body", f"http://{LISTEN}{path}")

    metrics = fetch("/metrics")
    assert {family.name for family in text_string_to_metric_families(metrics)} >= {"sipnat_calls"}
    assert metrics.isascii() and max(map(len, metrics.splitlines())) <= LONGEST_LINE
    assert USER not in metrics and "<script" not in metrics
    assert MARKUP not in fetch("/")
    for what in ("calls", "mappings", "reasons", "status"):
        assert json.loads(fetch(f"/api/{what}"))["rows"]
    for call_id in call_ids:
        if len(call_id) < MOST_ASKED:
            check_picture(fetch(f"/ladder.svg?call_id={quote(call_id)}"))
    path = tmp_path / "trace.pcapng"
    gateway.ask("trace", "--recent", "--count", "4", "--pcap", str(path))
    read = subprocess.run(["tshark", "-r", path, "-Y", "sip"], capture_output=True, check=True)
    assert read.stdout.count(b"\n") >= 4


def test_the_log_names_nobody_and_has_no_escapes(gateway: Gateway, call_ids: list[str]) -> None:
    gateway.ask("flush")
    assert wait_until(lambda: any("closed rtp" in line for line in gateway.log), 5.0)
    for line in gateway.log:
        check_text(line)
        assert USER not in line
    assert not any("Traceback" in line for line in gateway.log)


def test_what_is_explained_is_harmless(network: Network, tmp_path: Path) -> None:
    paths = []
    for number, (call_id, name, agent) in enumerate(CASES.values()):
        paths.append(str(tmp_path / str(number)))
        Path(paths[-1]).write_bytes(hostile("INVITE", 5060, call_id, name, agent))
    ends = ("--from", f"{PHONE_1}:5060", "--to", f"{SERVER}:5060")
    command = ("explain", *paths, *ends, "--internal", "10.0.0.0/24", "--external", EXTERNAL)
    check_text(network.router.run(SIPNAT, *command))
    check_terminal(on_terminal(*command))
    printed = network.router.run(SIPNAT, *command, "--json")
    assert printed.isascii() and len(list(map(json.loads, printed.splitlines()))) == len(CASES)
