"""What mutation starts from: drawn messages, the transcripts' messages, and messages by others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from alg.port_manager import natpmp, pcp
from nat_table.binding import Permit
from nat_table.endpoint import Endpoint
from tests.alg.abnf import read_choices, write_request, write_response
from tests.alg.abnf_sdp import default_world, write_multipart, write_sdp
from tests.alg.abnf_text import Scribe
from tests.alg.playbook import PHONE, PHONE6, invite, register, request, response, sdp
from tests.fuzz.targets import SEPARATOR

DRAWN = 200
IPV6_HEADER = bytes.fromhex("60000000 0000 1140" + "20010db8" * 8)
UDP_HEADER = bytes.fromhex("450000000001000040110000 0a000014 cb00710a 13c413c4 0000 0000")


def seeds_of(target: str, cases: Path | None) -> Iterator[bytes]:
    """Yields the seeds of one target; `cases` is the folder of messages by others."""
    if target == "request":
        yield from _requests()
        return
    rng = random.Random(1)
    for number in range(DRAWN):
        choose = read_choices(rng.randbytes(1000))
        if target == "sdp":
            body = (write_sdp, write_multipart)[number % 2](Scribe(choose, default_world()))
            yield body.content_type.replace("\r\n", "").encode() + b"\n" + body.data
            continue
        write = write_response if number % 3 == 0 else write_request
        yield _wrapped(target, [write(choose, default_world()).data], number)
    for number, messages in enumerate(_transcripts()):
        if target != "sdp":
            yield _wrapped(target, messages, number)
    if cases is None:
        return
    folder, kinds = ("sdp", "*.sdp") if target == "sdp" else ("messages", "*.sip")
    for number, path in enumerate(sorted((cases / folder).glob(kinds))):
        data = path.read_bytes()
        if len(data) < 4096:
            is_sdp = target == "sdp"
            yield b"application/sdp\n" + data if is_sdp else _wrapped(target, [data], number)
    for number, path in enumerate(sorted((cases / "torture").glob("*.dat"))):
        if target != "sdp":
            yield _wrapped(target, [path.read_bytes()], number)


def _requests() -> Iterator[bytes]:
    """Yields requests for mappings, and responses to them."""
    third, peer = "10.0.0.21", Endpoint("203.0.113.10", 6000)
    filters = (Permit(), Permit("203.0.113.0/24", 6000), Permit("0.0.0.0/0", 0))
    for options in (
        pcp.NO_OPTIONS,
        pcp.Options(third, True, filters),
        pcp.Options(port_set=pcp.PortSet(4, 4000, True)),
    ):
        for lifetime, protocol in ((0, 17), (600, 17), (600, 6), (600, 0)):
            body = pcp.Body(bytes(12), protocol, 4000, Endpoint("0.0.0.0", 4000))
            yield pcp.encode_request(
                pcp.Request(pcp.Opcode.MAP, PHONE.address, lifetime, body, options)
            )
            yield pcp.encode_response(
                pcp.Response(pcp.Opcode.MAP, pcp.Result.SUCCESS, lifetime, 7, body, options)
            )
        body = body._replace(peer=peer)
        yield pcp.encode_request(pcp.Request(pcp.Opcode.PEER, PHONE.address, 600, body))
    yield pcp.encode_request(pcp.Request(pcp.Opcode.ANNOUNCE, PHONE.address))
    mapped = natpmp.Mapped(4000, 4000, 600)
    yield natpmp.encode_request(natpmp.Request(natpmp.Opcode.MAP_UDP, mapped))
    yield natpmp.encode_request(natpmp.Request(natpmp.Opcode.ADDRESS))
    told = natpmp.Response(natpmp.Opcode.MAP_TCP, natpmp.Result.SUCCESS, 7, mapped=mapped)
    yield natpmp.encode_response(told)


def _transcripts() -> Iterator[list[bytes]]:
    asked = invite(PHONE, sdp(PHONE.address, 4000, "a=rtcp:4010"))
    yield [asked, response(asked, 180), response(asked, 200, body=sdp("203.0.113.9", 9000))]
    yield [asked, request("CANCEL"), response(asked, 487), request("ACK")]
    yield [asked, response(asked, 200), request("BYE", to_tag="b", cseq=2), asked]
    yield [request("UPDATE", PHONE, sdp(PHONE.address, 4000 + n), cseq=n) for n in range(9)]
    registering = register(PHONE, "Contact: <sip:a@10.0.0.20:5070>;expires=60")
    yield [registering, response(registering, 200, "Expires: 60"), register(PHONE, expires=0)]
    asked = invite(PHONE6, sdp(PHONE6.address, 4000, "a=rtcp:4010 IN IP6 FD00:1::20"))
    answer = response(asked, 200, body=sdp("2001:db8:ff::20", 9000))
    yield [asked, answer, request("BYE", PHONE6, to_tag="b", cseq=2)]
    messages = ("a=setup:actpass", "a=path:msrp://10.0.0.20:7394/1;tcp")
    body = sdp(PHONE.address, 7394, *messages, media="message", protocol="TCP/MSRP")
    asked = (
        invite(PHONE, body).replace(b"/UDP", b"/TCP").replace(b":5060>", b":5060;transport=tcp>")
    )
    body = sdp("203.0.113.9", 9, "a=setup:active", media="message", protocol="TCP/MSRP")
    yield [asked, response(asked, 200, body=body), request("BYE", to_tag="b", cseq=2)]
    yield [b"\r\n\r\n", b"\0\0\0\0"[:1], b"\r\n"]


def _wrapped(target: str, messages: list[bytes], number: int) -> bytes:
    """Brings messages into the form that the target reads."""
    if target == "packet" and number % 2:
        length = (8 + len(messages[0])).to_bytes(2, "big")
        ports = bytes.fromhex("13c413c4") + length + bytes(2)
        return IPV6_HEADER[:4] + length + IPV6_HEADER[6:] + ports + messages[0]
    if target == "packet":
        total = len(UDP_HEADER) + len(messages[0])
        header = bytearray(UDP_HEADER)
        header[2:4] = total.to_bytes(2, "big")
        header[24:26] = (total - 20).to_bytes(2, "big")
        return bytes(header) + messages[0]
    if target == "stream":
        return bytes((number % 256,)) + b"".join(messages)
    if target == "gateway":
        chunks = []
        for message in messages:
            is_answer = message.startswith(b"SIP/") and number % 2
            choice = 0 if is_answer else b"\2\1\6\3"[number % 4]
            choice |= 32 if b"[fd00:" in message else 0
            choice |= 64 if b"SIP/2.0/TCP" in message else 0
            chunks.append(bytes((choice,)) + message)
        return SEPARATOR.join(chunks)
    return messages[0]
