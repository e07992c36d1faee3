"""`sipnat explain`: a call seen from either side of the NAT, as text and as JSON."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scapy.packet import Packet
from typer.testing import CliRunner, Result

from alg.cli import app
from alg.sip.span import Edit, apply_edits
from nat_table.snapshot import MappingRow
from tests.alg.observe.wire import TIME, tcp, udp, write_pcap
from tests.alg.playbook import PHONE, PHONE_2, Playbook, invite, request, response, sdp, sip
from tests.alg.terminal import on_terminal

NETWORK = ["--internal", "10.0.0.0/24", "--external", "203.0.113.1"]
ENDS = ["--from", "10.0.0.20:5060", "--to", "203.0.113.10:5060"]
NAMES = {
    "index",
    "direction",
    "verdict",
    "reason",
    "before",
    "after",
    "edits",
    "opened",
    "closed",
}
HERE, THERE, OUR_SIDE = str(PHONE), "203.0.113.10:5060", "203.0.113.1:5060"
Row = dict[str, Any]


def sipnat(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def explain(*arguments: str | Path, network: list[str] = NETWORK) -> list[Row]:
    """Returns the objects that `--json` prints, each checked against what it must be."""
    result = sipnat(*arguments, *network, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    rows: list[Row] = [json.loads(line) for line in result.stdout.splitlines()]
    for number, row in enumerate(rows, start=1):
        check(row)
        assert row["index"] == number
    return rows


def check(row: Row) -> None:
    assert set(row) == NAMES
    assert row["direction"] in ("outbound", "inbound", "none")
    assert row["verdict"] in ("rewritten", "unchanged", "dropped")
    before, after = base64.b64decode(row["before"]), base64.b64decode(row["after"])
    for edit in row["edits"]:
        assert set(edit) == {"start", "end", "old", "new", "what"}
        assert before[edit["start"] : edit["end"]] == edit["old"].encode("latin-1")
    edits = [
        Edit(edit["start"], edit["end"], edit["new"].encode("latin-1"), edit["what"])
        for edit in row["edits"]
    ]
    assert apply_edits(before, edits) == after
    assert (before == after) == (row["verdict"] != "rewritten")
    for mapping in (*row["opened"], *row["closed"]):
        assert set(mapping) == set(MappingRow.__annotations__)


def story() -> list[tuple[str, str, bytes]]:
    """Returns the messages of a call as the phone's side of the NAT sees them."""
    play = Playbook()
    call = invite(PHONE, sdp("10.0.0.20", 4000))
    sent = play.outbound(call)
    answer = response(sent.payload, 200, body=sdp("203.0.113.10", 6000), contact=f"<sip:{THERE}>")
    bye = request("BYE", to_tag="b", cseq=2)
    over = response(play.outbound(bye).payload, 200)
    return [
        (HERE, THERE, call),
        (THERE, HERE, answer),
        (HERE, THERE, request("ACK", to_tag="b")),
        (HERE, THERE, bye),
        (THERE, HERE, over),
    ]


def rtp(number: int) -> Packet:
    return udp("10.0.0.20:4000", "203.0.113.10:6000", b"\x80\x00" + number.to_bytes(2, "big"))


def texts(rows: list[Row], key: str) -> list[str]:
    return [base64.b64decode(row[key]).decode() for row in rows]


def test_a_call_from_invite_to_bye(tmp_path: Path) -> None:
    packets = [udp(*message) for message in story()]
    path = write_pcap(tmp_path / "call.pcap", [*packets[:3], rtp(1), rtp(2), *packets[3:]])
    rows = explain(path)
    assert [(row["direction"], row["verdict"], row["reason"]) for row in rows] == [
        ("outbound", "rewritten", "rewritten"),
        ("inbound", "rewritten", "rewritten"),
        ("outbound", "rewritten", "rewritten"),
        ("outbound", "rewritten", "rewritten"),
        ("inbound", "rewritten", "rewritten"),
    ]
    opened = {row["kind"]: row for row in rows[0]["opened"]}
    assert set(opened) == {"sip", "rtp", "rtcp"}
    assert opened["rtp"]["internal"] == "10.0.0.20:4000"
    assert opened["rtp"]["external"] == "203.0.113.1:4000"
    assert (opened["rtp"]["call_id"], opened["rtp"]["state"]) == ("call-1", "call")
    assert opened["rtp"]["expires_in"] > 0
    assert "c=IN IP4 203.0.113.1\r\n" in texts(rows, "after")[0]
    assert "10.0.0.20" not in texts(rows, "after")[0]
    assert f"Via: SIP/2.0/UDP {PHONE};" in texts(rows, "after")[1]
    closed = [mapping["kind"] for row in rows[1:] for mapping in row["closed"]]
    assert sorted(closed) == ["rtcp", "rtp"]


def test_the_other_side_of_the_nat_is_looked_up_as_the_kernel_does(tmp_path: Path) -> None:
    (_, _, call), (_, _, answer), *_ = story()
    packets = [
        udp(THERE, OUR_SIDE, answer),
        udp(HERE, THERE, call),
        udp(OUR_SIDE, THERE, call),
        udp(THERE, OUR_SIDE, answer),
    ]
    rows = explain(write_pcap(tmp_path / "any.pcap", packets))
    assert [row["direction"] for row in rows] == ["none", "outbound", "none", "inbound"]
    assert [row["reason"] for row in rows] == [
        "not-translated",
        "rewritten",
        "not-translated",
        "rewritten",
    ]
    assert f"Via: SIP/2.0/UDP {PHONE};" in texts(rows, "after")[3]


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (HERE, str(PHONE_2)),
        ("198.51.100.1:5060", THERE),
        (HERE, "224.0.1.75:5060"),
        (HERE, "255.255.255.255:5060"),
        ("[2001:db8::20]:5060", "[fe80::10]:5060"),
        ("[2001:db8::20]:5060", "[ff02::10]:5060"),
    ],
)
def test_what_does_not_cross_the_nat_has_no_direction(
    tmp_path: Path, source: str, destination: str
) -> None:
    packet = udp(source, destination, story()[0][2])
    options = ["--internal", "2001:db8::/48", *NETWORK]
    (row,) = explain(write_pcap(tmp_path / "a.pcap", [packet]), network=options)
    assert (row["direction"], row["reason"]) == ("none", "not-translated")


def test_a_hairpin_is_outbound(tmp_path: Path) -> None:
    first = udp(str(PHONE_2), THERE, request("REGISTER", PHONE_2, call_id="r"))
    second = udp(HERE, OUR_SIDE, invite(PHONE))
    path = write_pcap(tmp_path / "a.pcap", [first, second])
    assert [row["direction"] for row in explain(path)] == ["outbound", "outbound"]
    assert re.search(r"^2  \S+  hairpin  rewritten$", sipnat(path, *NETWORK).stdout, re.MULTILINE)


def test_time_runs_between_the_packets(tmp_path: Path) -> None:
    options = request("OPTIONS")
    packets = [udp(HERE, THERE, options), udp(str(PHONE_2), THERE, b"\r\n\r\n")]
    rows = explain(write_pcap(tmp_path / "a.pcap", packets, interval=3600))
    (closed,) = rows[1]["closed"]
    assert (closed["kind"], closed["internal"], closed["expires_in"]) == ("sip", HERE, 0.0)
    text = sipnat(tmp_path / "a.pcap", *NETWORK).stdout
    assert "    expired sip/udp 10.0.0.20:5060 <-> 203.0.113.1:5060\n" in text


def test_messages_in_a_tcp_stream(tmp_path: Path) -> None:
    call = story()[0][2].replace(b"/UDP", b"/TCP")
    bye = request("BYE", to_tag="b", cseq=2).replace(b"/UDP", b"/TCP")
    octets = b"\r\n\r\n" + call + bye
    cuts = [octets[at : at + 100] for at in range(0, len(octets), 100)]
    packets = [tcp(HERE, THERE, 1 + 100 * number, cut) for number, cut in enumerate(cuts)]
    packets = [tcp(HERE, THERE, 0, b"", "S"), packets[1], packets[0], *packets[1:]]
    rows = explain(write_pcap(tmp_path / "a.pcap", packets))
    assert [row["reason"] for row in rows] == ["keepalive", "rewritten", "rewritten"]
    assert texts(rows, "before") == ["\r\n\r\n", call.decode(), bye.decode()]
    assert {row["transport"] for row in rows[1]["opened"] if row["kind"] == "sip"} == {"tcp", "udp"}


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        ([b"GET / HTTP/1.1\r\n\r\n", b"REGISTER sip:a SIP/2.0\r\nl: 0\r\n\r\n"], ["not-sip"]),
        ([sip("BYE sip:a SIP/2.0\nX: y", has_length=False)], ["malformed"]),
        ([b"BYE sip:a SIP/2.0\r\nContent-Length: 70000\r\n\r\n", b"more"], ["too-large"]),
        ([b"BYE sip:a SIP/2.0\r\nContent-Length: 70\r\n\r\n"], ["truncated"]),
    ],
)
def test_an_opaque_stream_is_explained_once(
    tmp_path: Path, octets: list[bytes], expected: list[str]
) -> None:
    starts = [sum(map(len, octets[:number])) for number in range(len(octets))]
    packets = [tcp(HERE, THERE, s, data) for s, data in zip(starts, octets, strict=True)]
    rows = explain(write_pcap(tmp_path / "a.pcap", packets))
    assert [row["reason"] for row in rows] == expected


def test_only_signalling_is_shown(tmp_path: Path) -> None:
    packets: list[Packet | bytes] = [
        rtp(1),
        udp("10.0.0.20:5070", "203.0.113.10:5080", request("OPTIONS")),
        udp("10.0.0.20:5070", "203.0.113.10:3478", b"\x00\x01"),
        udp("10.0.0.21:7060", "203.0.113.10:7070", b"\x00\x01"),
        tcp("10.0.0.21:7060", "203.0.113.10:80", 1, b"GET / HTTP/1.1\r\n\r\n"),
        udp("10.0.0.21:7060", "203.0.113.10:5060", b"\x00\x01"),
        bytes(udp(HERE, THERE, request("OPTIONS")))[:-7],
    ]
    path = write_pcap(tmp_path / "a.pcap", packets)
    reasons = ["rewritten", "not-sip", "not-sip", "truncated"]
    assert [row["reason"] for row in explain(path)] == reasons
    last = sipnat(path, *NETWORK).stdout.splitlines()[-1]
    assert last == (
        "4 messages: 1 rewritten, 3 unchanged; 2 mappings open at the end; "
        "not shown: bytes of TCP without SIP (18), datagrams without SIP (2)"
    )
    chosen = explain(path, "--sip-port", "7070")
    assert [row["reason"] for row in chosen] == ["rewritten", "not-sip", "not-sip", "truncated"]


def test_raw_files_go_through_one_gateway_in_order(tmp_path: Path) -> None:
    call, bye = story()[0][2], story()[3][2]
    (tmp_path / "1").write_bytes(call)
    (tmp_path / "2").write_bytes(bye)
    rows = explain(tmp_path / "1", tmp_path / "2", tmp_path / "1", *ENDS)
    assert len(rows[0]["opened"]) == 3
    assert [row["verdict"] for row in rows] == ["rewritten"] * 3
    assert rows[2]["after"] == rows[0]["after"]


def test_captures_and_raw_files_together(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "a.pcap", [udp(HERE, THERE, story()[0][2])])
    raw = tmp_path / "raw"
    raw.write_bytes(story()[3][2])
    assert [row["direction"] for row in explain(path, raw, path, *ENDS)] == ["outbound"] * 3


def test_text_of_an_invite(tmp_path: Path) -> None:
    packets = [udp(HERE, THERE, story()[0][2]), udp(HERE, THERE, b"\x00\x1b[2J")]
    result = sipnat(write_pcap(tmp_path / "a.pcap", packets), *NETWORK)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "1  22:13:20.000  outbound  rewritten\n"
        "    udp 10.0.0.20:5060 -> 203.0.113.10:5060\n"
        "    INVITE sip:bob@203.0.113.10 SIP/2.0\n"
        "    - Via: SIP/2.0/UDP 10.0.0.20:5060;rport;branch=z9hG4bK-call-1-1-INVITE\n"
        "    + Via: SIP/2.0/UDP 203.0.113.1:5060;rport;branch=z9hG4bK-call-1-1-INVITE\n"
        "    - Contact: <sip:alice@10.0.0.20:5060>\n"
        "    + Contact: <sip:alice@203.0.113.1:5060>\n"
        "    - Content-Length: 87\n"
        "    + Content-Length: 91\n"
        "    - o=- 1 1 IN IP4 10.0.0.20\n"
        "    + o=- 1 1 IN IP4 203.0.113.1\n"
        "    - c=IN IP4 10.0.0.20\n"
        "    + c=IN IP4 203.0.113.1\n"
        "    opened sip/udp 10.0.0.20:5060 <-> 203.0.113.1:5060  call call-1\n"
        "    opened rtp/udp 10.0.0.20:4000 <-> 203.0.113.1:4000  call call-1\n"
        "    opened rtcp/udp 10.0.0.20:4001 <-> 203.0.113.1:4001  call call-1\n"
        "\n"
        "2  22:13:21.000  outbound  unchanged (not-sip)\n"
        "    udp 10.0.0.20:5060 -> 203.0.113.10:5060\n"
        "    5 bytes: \\x00\\x1b[2J\n"
        "\n"
        "2 messages: 1 rewritten, 1 unchanged; 3 mappings open at the end\n"
    )
    assert TIME % 86400 == 22 * 3600 + 13 * 60 + 20


def test_an_inserted_line_is_shown_alone(tmp_path: Path) -> None:
    other = udp(str(PHONE_2), THERE, invite(PHONE_2, sdp("10.0.0.21", 4001), call_id="call-2"))
    path = write_pcap(tmp_path / "a.pcap", [other, udp(HERE, THERE, story()[0][2])])
    text = sipnat(path, *NETWORK).stdout
    for sign, line in re.findall(r"^    ([-+]) (a=rtcp:\S+|m=\S+ \S+)", text, re.MULTILINE):
        assert (sign, line[:2]) in {("-", "m="), ("+", "m="), ("+", "a=")}


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e"


def test_hostile_octets_are_harmless_as_text(tmp_path: Path) -> None:
    message = request("INVITE", uri="sip:\x1b[2J", call_id=HOSTILE, branch="z9hG4bK1")
    message = message.replace(b";rport", b';x="' + HOSTILE.encode() + b'\xff"')
    path = write_pcap(tmp_path / "a.pcap", [udp(HERE, THERE, message)])
    (row,) = explain(path)
    assert row["verdict"] == "rewritten"
    text = sipnat(path, *NETWORK).stdout
    assert text.replace("\n", "").isprintable()
    assert r"INVITE sip:\x1b[2J" in text
    shown = on_terminal("explain", str(path), *NETWORK)
    assert "\x1b[1;32m1 " in shown
    assert "\x1b[31m    - Via" in shown
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "").isprintable()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (NETWORK[2:], "internal is missing: give --internal"),
        (NETWORK[:2], "external is missing: give --external"),
        ([*NETWORK, "--internal", "lan0"], '--internal is "lan0", allowed is a network such as'),
        ([*NETWORK, "--external", "::1"], '--external is "::1", allowed is an address of one host'),
        (
            [*NETWORK, "--external", "203.0.113.2"],
            '--external is "203.0.113.2", allowed is one for each family',
        ),
        ([*NETWORK, *ENDS[:2]], "{raw} is no capture: give --from and --to, which say where"),
        ([*NETWORK, *ENDS[2:]], "{raw} is no capture: give --from and --to, which say where"),
        ([*NETWORK, "--from", "a", *ENDS[2:]], '--from is "a", allowed is ADDRESS:PORT'),
    ],
)
def test_wrong_options_are_one_sentence_and_exit_2(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(story()[0][2])
    result = sipnat(raw, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("sipnat: " + expected.format(raw=raw))
    assert result.stderr.count("\n") == 1


def test_what_cannot_be_read_to_its_end_exits_1(tmp_path: Path) -> None:
    missing = sipnat(tmp_path / "missing", *NETWORK, "--json")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.endswith("missing: cannot be read: No such file or directory\n")
    path = write_pcap(tmp_path / "a.pcap", [udp(HERE, THERE, story()[0][2])] * 2)
    path.write_bytes(path.read_bytes()[:-3])
    cut = sipnat(path, *NETWORK, "--json")
    assert (cut.exit_code, cut.stdout.count("\n")) == (1, 1)
    assert cut.stderr == f"sipnat: {path}: the capture is cut or damaged after frame 1\n"
    large = tmp_path / "large"
    large.write_bytes(bytes(2 << 20))
    result = sipnat(large, *NETWORK, *ENDS, "--json")
    assert result.exit_code == 1
    assert result.stderr.endswith("this is neither a capture nor a SIP message: too large\n")


def test_it_needs_neither_the_kernel_nor_root(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "a.pcap", [udp(HERE, THERE, story()[0][2])])
    code = (
        f"import sys; sys.argv[1:] = {['explain', str(path), *NETWORK]!r}\n"
        "from alg.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted({'pyroute2', 'netfilterqueue', 'scapy', 'rules'} & {*sys.modules}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("at the end\n\n")


PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
OPTIONS = [word for cidr in PRIVATE for word in ("--internal", cidr)]
EXPLAINED = {
    "rewritten",
    "nothing-to-change",
    "not-translated",
    "keepalive",
    "not-sip",
    "malformed",
    "truncated",
}


def test_real_captures_are_explained(cases: Path) -> None:
    reasons: Counter[str] = Counter()
    for path in sorted((cases / "pcap").glob("*.pcap*")):
        rows = explain(path, network=[*OPTIONS, "--external", "203.0.113.1"])
        reasons.update(row["reason"] for row in rows)
        fuzzed = "fuzz" in path.name
        assert fuzzed or not {row["reason"] for row in rows} & {"malformed", "truncated"}, path
    assert set(reasons) <= EXPLAINED, reasons
    assert reasons["rewritten"] > 100
