"""The client of the gateway above, against a gateway on loopback that answers as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from alg.port_manager import natpmp, pcp
from alg.upstream import mapper as module
from alg.upstream.mapper import Denied, Mapper, Silent
from nat_table.endpoint import Endpoint, Transport

WIRE, PUBLIC = "127.0.0.1", "203.0.113.1"
KEY = (Transport.UDP, 4000)
_numbers = itertools.count(1)

Answer = Callable[[bytes], list[bytes]]


class Gateway(asyncio.DatagramProtocol):
    """Answers each request with what `answer` makes of it; `heard` are the requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.lost = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append(data)
        self.client = addr
        for each in self.answer(data):
            self.transport.sendto(each, addr)

    def lose(self) -> None:
        self.lost += 1


@contextlib.asynccontextmanager
async def mapper_of(answer: Answer) -> AsyncIterator[tuple[Mapper, Gateway]]:
    """Yields a client and its gateway, which has an address of its own on loopback."""
    number = next(_numbers)
    address = f"127.53.{os.getpid() % 250}.{number}"
    loop = asyncio.get_running_loop()
    transport, gateway = await loop.create_datagram_endpoint(
        lambda: Gateway(answer), local_addr=(address, pcp.SERVER_PORT)
    )
    mapper = Mapper(address, WIRE, "lo", gateway.lose)
    await mapper.open()
    try:
        yield mapper, gateway
    finally:
        mapper.close()
        transport.close()


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a client give up soon who would wait for one of the two protocols in vain."""
    monkeypatch.setattr(module, "PAUSES", (0.05, 0.05, 0.05, 0.05))


def granting(port: int = 0, *, epoch: int = 100, result: pcp.Result = pcp.Result.SUCCESS) -> Answer:
    """Returns what answers as a PCP server: with the suggested port, or with one."""

    def answer(data: bytes) -> list[bytes]:
        if data[0] != pcp.VERSION:
            return []
        request = pcp.parse_request(data)
        assert request.body is not None
        if result:
            return [pcp.encode_error(data, result, 30, epoch)]
        external = Endpoint(PUBLIC, port or request.body.external.port)
        body = request.body._replace(external=external)
        return [pcp.encode_response(pcp.Response(request.opcode, result, 600, epoch, body))]

    return answer


def natpmp_only(data: bytes) -> list[bytes]:
    """Answers as a NAT-PMP server that has never heard of PCP (RFC 6886 §3.5)."""
    if data[0] != natpmp.VERSION:
        return [natpmp.encode_error(data, natpmp.Result.UNSUPPORTED_VERSION, 100)]
    request = natpmp.parse_request(data)
    answer = natpmp.Response(request.opcode, natpmp.Result.SUCCESS, 100, PUBLIC, None)
    if request.mapped is not None:
        answer = answer._replace(address=None, mapped=request.mapped._replace(lifetime=60))
    return [natpmp.encode_response(answer)]


@pytest.mark.usefixtures("haste")
def test_a_mapping_is_asked_for_by_its_own_port_and_no_other() -> None:
    async def scene() -> None:
        async with mapper_of(granting()) as (mapper, gateway):
            grant = await mapper.map(KEY, 3600)
            assert grant == (Endpoint(PUBLIC, 4000), 600)
            request = pcp.parse_request(gateway.heard[0])
            assert (request.client, request.lifetime) == (WIRE, 3600)
            assert request.options.prefers_failure
            assert request.body is not None
            assert (request.body.protocol, request.body.internal_port) == (17, 4000)
            assert await mapper.address() == PUBLIC

    asyncio.run(scene())


def test_the_nonce_of_a_mapping_is_the_same_at_each_start_and_of_no_other() -> None:
    async def nonces() -> list[bytes]:
        async with mapper_of(granting()) as (mapper, gateway):
            for key in (KEY, (Transport.TCP, 4000), (Transport.UDP, 4001)):
                await mapper.map(key, 3600)
            bodies = [pcp.parse_request(each).body for each in gateway.heard]
            return [body.nonce for body in bodies if body is not None]

    first = asyncio.run(nonces())
    assert len(set(first)) == 3
    assert asyncio.run(nonces()) == first


@pytest.mark.usefixtures("haste")
@pytest.mark.parametrize(
    ("result", "is_port"),
    [(pcp.Result.CANNOT_PROVIDE_EXTERNAL, True), (pcp.Result.NO_RESOURCES, False)],
)
def test_a_refusal_has_its_word(result: pcp.Result, is_port: bool) -> None:
    async def scene() -> None:
        async with mapper_of(granting(result=result)) as (mapper, _):
            with pytest.raises(Denied, match=result.name) as refusal:
                await mapper.map(KEY, 3600)
            assert refusal.value.is_port is is_port
            assert await mapper.address() is None

    asyncio.run(scene())


def test_a_gateway_without_pcp_is_asked_by_nat_pmp() -> None:
    async def scene() -> None:
        async with mapper_of(natpmp_only) as (mapper, gateway):
            assert await mapper.address() == PUBLIC and mapper.is_natpmp
            tcp = (Transport.TCP, 5060)
            grants = await asyncio.gather(mapper.map(KEY, 3600), mapper.map(tcp, 3600))
            assert [each.external for each in grants] == [
                Endpoint(PUBLIC, 4000),
                Endpoint(PUBLIC, 5060),
            ]
            await mapper.map(KEY, 0)
            last = natpmp.parse_request(gateway.heard[-1])
            assert last.mapped == natpmp.Mapped(4000, 0, 0)

    asyncio.run(scene())


@pytest.mark.usefixtures("haste")
def test_a_nat_pmp_gateway_that_ignores_what_it_does_not_know_is_found_too() -> None:
    async def scene() -> None:
        def answer(data: bytes) -> list[bytes]:
            return natpmp_only(data) if data[0] == natpmp.VERSION else []

        async with mapper_of(answer) as (mapper, _):
            assert await mapper.address() == PUBLIC and mapper.is_natpmp

    asyncio.run(scene())


def test_a_gateway_where_nobody_listens_is_known_at_once() -> None:
    async def scene() -> None:
        async with mapper_of(lambda data: []) as (mapper, gateway):
            gateway.transport.close()
            await asyncio.sleep(0)
            async with asyncio.timeout(1.0):
                assert await mapper.address() is None

    asyncio.run(scene())


@pytest.mark.usefixtures("haste")
def test_a_question_is_repeated_and_in_the_end_given_up() -> None:
    async def scene() -> None:
        async with mapper_of(lambda data: []) as (mapper, gateway):
            with pytest.raises(Silent):
                await mapper.map(KEY, 3600)
            assert len(gateway.heard) == 4 and len(set(gateway.heard)) == 1

    asyncio.run(scene())


def test_who_is_closed_gets_no_answer_and_asks_nothing_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with mapper_of(lambda data: []) as (mapper, _), asyncio.timeout(1.0):
            asking = asyncio.create_task(mapper.map(KEY, 3600))
            await asyncio.sleep(0)
            mapper.close()
            for question in (asking, mapper.map(KEY, 3600)):
                with pytest.raises(Silent):
                    await question

    asyncio.run(scene())
    assert caplog.text == ""


def test_another_epoch_and_a_mapping_that_changes_by_itself_are_told() -> None:
    async def scene() -> None:
        async with mapper_of(granting(epoch=1000)) as (mapper, gateway):
            await mapper.map(KEY, 3600)
            await mapper.map((Transport.UDP, 4001), 3600)
            assert gateway.lost == 0
            gateway.answer = granting(epoch=3)
            await mapper.map((Transport.UDP, 4002), 3600)
            assert gateway.lost == 1, "it has begun anew"

            request = gateway.heard[0]
            for port, told in ((4000, 1), (4444, 2)):
                for each in granting(port, epoch=3)(request):
                    gateway.transport.sendto(each, gateway.client)
                await asyncio.sleep(0.1)
                assert gateway.lost == told

    asyncio.run(scene())


def test_answers_that_are_none_change_nothing() -> None:
    """Fixed seed: what is cut, flipped or of another nonce is no answer."""
    rng = random.Random(6887)

    def answer(data: bytes) -> list[bytes]:
        [good] = granting()(data)
        bad = [good[: rng.randrange(len(good))] for _ in range(20)]
        bad += [bytes(rng.randbytes(rng.randrange(1, 200))) for _ in range(50)]
        forged = good[:24] + bytes(12) + good[36:]
        return [*bad, forged, good]

    async def scene() -> None:
        async with mapper_of(answer) as (mapper, _):
            for port in range(4000, 4020):
                grant = await mapper.map((Transport.UDP, port), 3600)
                assert grant.external == Endpoint(PUBLIC, port)

    asyncio.run(scene())


@pytest.mark.parametrize("address", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1"])
def test_what_can_be_no_address_of_ours_is_none(address: str) -> None:
    def answer(data: bytes) -> list[bytes]:
        if data[0] != natpmp.VERSION:
            return []
        told = natpmp.Response(natpmp.Opcode.ADDRESS, natpmp.Result.SUCCESS, 100, address, None)
        return [natpmp.encode_response(told)]

    async def scene() -> None:
        async with mapper_of(answer) as (mapper, _):
            assert await mapper.address() is None

    asyncio.run(scene())


def test_what_is_said_to_all_answers_nothing() -> None:
    """Anybody on the link can say it, without knowing from which port was asked."""

    async def scene() -> None:
        async with mapper_of(lambda data: []) as (mapper, gateway):
            asking = asyncio.create_task(mapper.address())
            await asyncio.sleep(0.05)
            forged = natpmp.Response(natpmp.Opcode.ADDRESS, natpmp.Result.SUCCESS, 9, PUBLIC, None)
            mapper.hear_news(natpmp.encode_response(forged))
            await asyncio.sleep(0.05)
            mapper.hear_news(natpmp.encode_response(forged._replace(epoch=1)))
            assert gateway.lost == 1
            assert await asking is None

    asyncio.run(scene())
