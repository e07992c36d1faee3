"""Six properties that hold for every message the RFCs' grammars allow (see abnf.py).

`expected` says what a message must become, worked out from what its writer noted and from the
table, without a parser: this is how it is known that every place was edited that had to be, and no
other byte. CI draws the same examples in every run; SIPNAT_PROPERTY_STEPS=20000 in the environment
draws that many new ones for each property.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from hypothesis import HealthCheck, assume, given, settings

from alg.gateway_settings import GatewaySettings
from alg.sip.header_line import LAST_LIST, NAMES
from alg.sip.message import parse_message
from alg.sip.span import Edit, apply_edits
from alg.verdict import Outcome, Reason, Verdict
from nat_table.endpoint import Endpoint, Transport
from tests.alg.abnf import Message, messages
from tests.alg.abnf_sdp import default_world
from tests.alg.abnf_text import Named, World
from tests.alg.playbook import (
    EXTERNAL,
    EXTERNAL6,
    PHONE,
    PHONE_2,
    SERVER,
    Playbook,
    invite,
    register,
    sdp,
)

STEPS = int(os.environ.get("SIPNAT_PROPERTY_STEPS", "0"))

few = settings(
    max_examples=STEPS or 60,
    derandomize=not STEPS,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
MEDIA_HOST = "10.0.0.30"
SETTINGS = GatewaySettings((EXTERNAL,), media_hosts=frozenset((MEDIA_HOST,)))


def playbook(*, is_busy: bool) -> Playbook:
    """Returns a playbook; a busy one has given phone 2 what phone 1 would like to keep."""
    play = Playbook(settings=SETTINGS)
    if is_busy:
        play.outbound(register(PHONE_2, "m: <sip:a@10.0.0.21:5062>"), PHONE_2)
        body = sdp("10.0.0.21", 4000, "m=audio 49170 RTP/AVP 0", "m=video 4006 RTP/AVP 31")
        play.outbound(invite(PHONE_2, body), PHONE_2)
    return play


def is_busy(message: Message) -> bool:
    """Half of the messages meet a busy gateway."""
    return len(message.data) % 2 == 0


def sent(play: Playbook, message: Message) -> Outcome:
    """Sends a valid message; whatever the grammar allows must be understood."""
    outcome = play.outbound(message.data)
    if outcome.reason is Reason.NO_FREE_PORT:
        assert message.has_ports_in_a_row
        assert outcome.payload == message.data
        assume(False)
    assert outcome.reason in (Reason.REWRITTEN, Reason.NOTHING_TO_CHANGE, Reason.ENCODED_BODY), (
        outcome
    )
    return outcome


def expected(play: Playbook, message: Message) -> bytes:
    """Returns what the message must become, by what it names and what is mapped."""
    edits = [
        edit
        for named in message.named
        if named.what != "request-uri"
        for edit in mapped(play, named)
    ]
    for stream in message.streams:
        rtp, rtcp = external_port(play, stream.address, stream.port), stream.port + 1
        if rtcp < 65536 and (other := external_port(play, stream.address, rtcp)) != rtp + 1:
            line_end = b"\n" if message.data.startswith(b"\n", stream.end) else b"\r\n"
            edits.append(Edit(stream.end, stream.end, line_end + b"a=rtcp:%d" % other, ""))
    growth = sum(
        len(edit.new) - (edit.end - edit.start)
        for edit in edits
        if edit.start >= message.body.start
    )
    if message.length is not None:
        length = message.body.end - message.body.start + growth
        edits.append(Edit(*message.length, b"%d" % length, ""))
    return apply_edits(message.data, edits)


def mapped(play: Playbook, named: Named) -> Iterator[Edit]:
    """Yields the edits of one place: the address, and the port where it is another one."""
    if named.host is not None:
        yield Edit(*named.host, external_host(named.address).encode(), "")
    if not named.number:
        return
    port = external_port(play, named.address, named.number, is_tcp=named.is_tcp)
    if named.port is not None:
        if port != named.number:
            yield Edit(*named.port, b"%d" % port, "")
    elif port != named.default:
        assert named.host is not None
        yield Edit(named.host.end, named.host.end, b":%d" % port, "")


def external_host(host: str) -> str:
    """Returns what stands for a host of the phone, in brackets where it stands in such."""
    if ":" not in host:
        return EXTERNAL
    return f"[{EXTERNAL6}]" if host.startswith("[") else EXTERNAL6


def external_port(play: Playbook, address: str, port: int, *, is_tcp: bool = False) -> int:
    host = f"[{address}]" if ":" in address and not address.startswith("[") else address
    binding = play.binding(f"{host}:{port}", Transport.TCP if is_tcp else Transport.UDP)
    assert binding is not None, f"{address}:{port} is named and not mapped"
    return binding.external.port


@few
@given(messages())
def test_a04_only_what_names_the_phone_changes_and_all_of_that(message: Message) -> None:
    """Property 1: the bytes outside of the edits are equal; the edits are where they must be."""
    play = playbook(is_busy=is_busy(message))
    outcome = sent(play, message)
    assert outcome.payload == expected(play, message)
    assert outcome.payload == apply_edits(message.data, outcome.edits)
    assert (outcome.verdict is Verdict.REWRITTEN) == bool(outcome.edits)
    assert all(message.data[edit.start : edit.end] != edit.new for edit in outcome.edits)


@few
@given(messages())
def test_a01_a06_what_leaves_parses_and_its_length_is_right(message: Message) -> None:
    """Property 2: the output is as good a message as the input was."""
    outcome = sent(playbook(is_busy=is_busy(message)), message)
    before, after = parse_message(message.data), parse_message(outcome.payload)
    assert [field.name for field in after.fields] == [field.name for field in before.fields]
    for kind in range(LAST_LIST + 1, len(NAMES)):
        assert (after.single(kind) is None) == (before.single(kind) is None)
    identity = ("method", "status", "call_id", "cseq", "from_tag", "to_tag", "branch")
    for name in identity:
        assert getattr(after, name) == getattr(before, name)
    assert (after.from_tag.decode(), after.method.decode()) == (message.from_tag, message.method)
    head = re.split(rb"\r?\n\r?\n", outcome.payload.lstrip(b"\r\n"), maxsplit=1)[0]
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", head)
    lengths = re.findall(rb"(?im)^(?:content-length|l)[ \t]*:[ \t]*([0-9]+)[ \t]*\r?$", unfolded)
    assert len(lengths) == (message.length is not None)
    trailing = len(message.data) - message.body.end
    body_length = len(outcome.payload) - after.headers_end - trailing
    assert lengths in ([], [b"%d" % body_length])


def echoed_world() -> World:
    """Returns a world for what comes back: how a port is written is not remembered by message."""
    world = default_world()
    return World(world.own, world.own_media, world.foreign, world.ports, None, False)


@few
@given(messages(echoed_world(), is_echoed=True, kind="request"))
def test_a13_a25_what_comes_back_reads_as_the_phone_wrote_it(message: Message) -> None:
    """Property 3, where the phone's ports are free: a UAS echoes Via and Contact to the byte."""
    assert_comes_back(playbook(is_busy=False), message)


def bound_world(*, is_bare: bool) -> World:
    world = default_world()
    ports = (5060, 5062, 5061, 40000)
    return World(world.own, world.own_media, world.foreign, ports, is_bare, False)


@few
@given(messages(bound_world(is_bare=False), is_echoed=True, kind="request"))
def test_a13_a25_written_ports_come_back(message: Message) -> None:
    """Property 3, where the phone's ports are taken by another, and it always writes its own."""
    assert_comes_back(playbook(is_busy=True), message)


@few
@given(messages(bound_world(is_bare=True), is_echoed=True, kind="request"))
def test_a13_a25_unwritten_ports_come_back(message: Message) -> None:
    """Property 3, where the phone's ports are taken by another, and it never writes its own."""
    assert_comes_back(playbook(is_busy=True), message)


def assert_comes_back(play: Playbook, message: Message) -> None:
    payload = sent(play, message).payload
    begin = message.data.index(message.fields[0][1])
    assert payload[:begin] == message.data[:begin]
    answer = b"SIP/2.0 200 OK\r\n"
    echo, wrote = payload[begin:], message.data[begin:]
    for by_server in (b"", b";received=203.0.113.1;rport=5060"):
        outcome = play.inbound(answer + with_received(echo, by_server))
        assert outcome.reason in (Reason.REWRITTEN, Reason.NOTHING_TO_CHANGE)
        assert outcome.payload == answer + with_received(wrote, by_server)


def with_received(rest: bytes, by_server: bytes) -> bytes:
    """Returns the fields with parameters put behind the first sent-by, as a server does."""
    via = re.search(rb"(?i)(?:\A|\n)(?:via|v)[ \t]*:(?:[^;,\n]|\n[ \t])*", rest)
    assert via is not None
    end = len(rest[: via.end()].rstrip())
    return rest[:end] + by_server + rest[end:]


@few
@given(messages())
def test_a17_a79_rewriting_twice_changes_nothing_more(message: Message) -> None:
    """Property 4: by the same phone, by another one, and by a second gateway further on."""
    play = playbook(is_busy=is_busy(message))
    payload = sent(play, message).payload
    before = play.mappings()
    for source in (PHONE, Endpoint("10.0.0.99", 5060), Endpoint(EXTERNAL, 5060)):
        again = play.outbound(payload, source)
        assert (again.payload, again.edits) == (payload, ())
    second = Playbook(settings=SETTINGS).outbound(payload, Endpoint(EXTERNAL, 5060))
    assert (second.payload, second.edits) == (payload, ())
    assert play.mappings() == before


@few
@given(messages(), messages())
def test_a34_same_request_same_answer(message: Message, other: Message) -> None:
    """Property 5: a retransmission leaves as the first one did, whatever came in between."""
    play = playbook(is_busy=is_busy(message))
    payload = sent(play, message).payload
    mappings = set(play.table.bindings())
    for seconds, source in ((0.5, PHONE), (1.0, PHONE_2), (2.0, PHONE), (4.0, PHONE_2)):
        play.wait(seconds)
        play.outbound(other.data.replace(b"10.0.0.20", source.address.encode()), source)
        play.inbound(other.data)
        assert play.outbound(message.data).payload == payload
    assert mappings <= set(play.table.bindings())


LISTS = ("Contact", "Route", "Record-Route", "Path", "Service-Route", "Refer-To", "Reply-To")


@few
@given(messages(kind="request"))
def test_a18_a34_no_internal_address_is_left(message: Message) -> None:
    """Property 6: no routed field and no c= line names the phone, by plain search."""
    payload = sent(playbook(is_busy=is_busy(message)), message).payload
    head = re.split(r"\r?\n\r?\n", payload.lstrip().decode("latin-1"), maxsplit=1)[0]
    kept = re.split(r"\r?\n(?![ \t])", head)[1:]
    for (name, _), line in zip(message.fields, kept, strict=True):
        text = re.sub(r'"(?:[^"\\]|\\.)*"', "", re.sub(r"\s+", " ", line))
        text = re.sub(r"[^,]*;transport=(?:tls|ws)[>;?][^,]*|\?[^>,]*", "", text)
        text = re.sub(r"(?i)(sips?:)[^@<> ]*@", r"\1", text)
        if name == "Via":
            assert not re.search(r"(?i)UDP 10\.0\.0\.20(?![0-9.])", text)
        elif name in LISTS:
            assert not re.search(r"(?i)sips?:10\.0\.0\.20(?![0-9.])", text)
    if any(named.what == "c=" for named in message.named):
        trailing = len(message.data) - message.body.end
        after = payload[parse_message(payload).headers_end : len(payload) - trailing]
        description = re.search(rb"(?ms)^v=0\r?\n.*?(?=^v=|^--|\Z)", after)
        assert description is not None
        assert not re.search(rb"(?m)^[oc]=.*IN IP4 10\.0\.0\.[23]0\s*$", description[0])


INBOUND = World((EXTERNAL,), (EXTERNAL,), default_world().foreign, (5060, 5062, 5061, 40000))


@few
@given(messages(INBOUND, kind="request"))
def test_a19_inbound_only_the_phones_own_mappings_become_internal(message: Message) -> None:
    """Property 1, inbound: Request-URI and Route name mappings of the phone, not of another.

    Nor do they name what is mapped for UDP where they say TCP.
    """
    play = playbook(is_busy=False)
    play.outbound(register(PHONE, "m: <sip:a@10.0.0.20:5062>"))
    play.outbound(register(PHONE_2, "m: <sip:a@10.0.0.21:5061>"), PHONE_2)
    edits = [
        Edit(*named.host, PHONE.address.encode(), "")
        for named in message.named
        if named.what in ("request-uri", "route") and named.host is not None
        if named.number in (5060, 5062) and not named.is_tcp
    ]
    outcome = play.inbound(message.data, PHONE, SERVER)
    assert outcome.payload == apply_edits(message.data, edits)
