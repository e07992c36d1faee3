"""A relayed connection: what is handed on, in which order, and what is never kept in memory."""

from __future__ import annotations

import asyncio

import pytest

from alg.io import legs
from alg.io.legs import HIGH_WATER, READ_SIZE, TryAgain, reset_on_close
from alg.sip.stream import Fault
from tests.alg.io.wires import Recorder, Wire, run, wired

REGISTER = b"register sip:example.com SIP/2.0\r\ncontent-length: 4\r\n\r\nabcd"
OPTIONS = b"options sip:example.com SIP/2.0\r\nl: 0\r\n\r\n"
RINGING = b"SIP/2.0 180 ringing\r\nl: 0\r\n\r\n"
WEB_FORM = b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n" + REGISTER
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
MAX_MESSAGE = 4096


@run
async def test_a68_whole_messages_are_translated_in_both_directions() -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        await wire.phone.send(REGISTER)
        assert await wire.server.receive(len(REGISTER)) == REGISTER.upper()
        await wire.server.send(RINGING)
        assert await wire.phone.receive(len(RINGING)) == RINGING.upper()
    assert owner.seen == [(REGISTER, True), (RINGING, False)]
    assert (owner.faults, owner.closed) == ([], 1)


@run
async def test_a68_a_message_in_segments_of_one_byte_goes_on_when_it_is_whole() -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        await wire.phone.send(*(bytes((octet,)) for octet in REGISTER))
        assert await wire.server.receive(len(REGISTER)) == REGISTER.upper()
    assert owner.seen == [(REGISTER, True)]


@run
async def test_a68_pipelined_messages_in_one_segment_keep_their_order() -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        await wire.phone.send((REGISTER + OPTIONS) * 50)
        expected = (REGISTER + OPTIONS).upper() * 50
        assert await wire.server.receive(len(expected)) == expected
    assert len(owner.seen) == 100


@run
async def test_a72_keepalives_pass_at_once_and_are_nobodys_business() -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        for ping in (b"\r\n\r\n", b"\r\n"):
            await wire.phone.send(ping)
            assert await wire.server.receive(len(ping)) == ping
        await wire.server.send(b"\r\n")
        assert await wire.phone.receive(2) == b"\r\n"
        await wire.phone.send(b"\r\n" + OPTIONS)
        assert await wire.server.receive(2 + len(OPTIONS)) == b"\r\n" + OPTIONS.upper()
    assert owner.seen == [(OPTIONS, True)]


@pytest.mark.parametrize("is_phone_first", [True, False], ids=["phone", "server"])
@run
async def test_an_end_is_handed_on_while_the_other_direction_goes_on(is_phone_first: bool) -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        first, second = wire.ends(is_phone_first=is_phone_first)
        await first.send(OPTIONS)
        first.finish()
        assert await second.receive(len(OPTIONS)) == OPTIONS.upper()
        assert await second.is_at_end()
        await second.send(RINGING * 3)
        assert await first.receive(3 * len(RINGING)) == RINGING.upper() * 3
        second.finish()
        assert await first.is_at_end()
        await wire.wait_until_over()
    assert owner.closed == 1


@run
async def test_the_rest_of_a_message_that_was_never_whole_goes_on_as_it_is() -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        await wire.phone.send(REGISTER[:-1])
        wire.phone.finish()
        assert await wire.server.receive(1000) == REGISTER[:-1]
        await wire.server.send(RINGING)
        assert await wire.phone.receive(len(RINGING)) == RINGING.upper()
    assert owner.faults == []


@pytest.mark.parametrize("is_phone_first", [True, False], ids=["phone", "server"])
@run
async def test_a_reset_is_handed_on_as_a_reset(is_phone_first: bool) -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        first, second = wire.ends(is_phone_first=is_phone_first)
        reset_on_close(first.socket)
        first.socket.close()
        with pytest.raises(ConnectionResetError):
            await second.receive(1)
        await wire.wait_until_over()
    assert owner.closed == 1


@pytest.mark.parametrize("octets", [TLS, WEB_FORM, b"\0" * 20], ids=["tls", "web", "zeros"])
@run
async def test_a81_a88_what_does_not_begin_like_sip_is_opaque_for_ever(octets: bytes) -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        await wire.phone.send(octets)
        assert await wire.server.receive(len(octets)) == octets
        await wire.phone.send(REGISTER)
        assert await wire.server.receive(len(REGISTER)) == REGISTER
        await wire.server.send(RINGING)
        assert await wire.phone.receive(len(RINGING)) == RINGING
    assert (owner.seen, owner.faults) == ([], [Fault.NOT_SIP])


@run
async def test_a81_one_opaque_direction_makes_the_other_opaque_too() -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        await wire.phone.send(REGISTER + REGISTER[:20])
        assert await wire.server.receive(len(REGISTER)) == REGISTER.upper()
        await wire.server.send(TLS)
        assert await wire.phone.receive(len(TLS)) == TLS
        assert await wire.server.receive(20) == REGISTER[:20], "what was held goes on"
        await wire.phone.send(REGISTER[20:] + REGISTER)
        rest = REGISTER[20:] + REGISTER
        assert await wire.server.receive(len(rest)) == rest
    assert owner.seen == [(REGISTER, True)]


@run
async def test_a_connection_that_has_no_mapping_is_opaque_from_the_start() -> None:
    owner = Recorder(has_sip=False)
    async with wired(owner) as wire:
        await wire.phone.send(REGISTER)
        assert await wire.server.receive(len(REGISTER)) == REGISTER
    assert (owner.seen, owner.faults) == ([], [])


@run
async def test_a_message_that_the_kernel_refuses_waits_and_those_behind_it_too() -> None:
    refusals = [TryAgain(), TryAgain()]

    def edit(message: bytes) -> bytes:
        if refusals:
            raise refusals.pop()
        return message.upper()

    async with wired(Recorder(edit)) as wire:
        await wire.phone.send(REGISTER + b"\r\n" + OPTIONS)
        await wire.server.send(RINGING)
        assert await wire.phone.receive(len(RINGING)) == RINGING.upper(), "the other way goes on"
        wire.phone.finish()
        expected = (REGISTER + b"\r\n" + OPTIONS).upper()
        assert await wire.server.receive(1000) == expected


@run
async def test_a_message_that_the_kernel_refuses_for_long_goes_on_as_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(legs, "RETRY_TIMEOUT", 0.3)

    def edit(message: bytes) -> bytes:
        if message == REGISTER:
            raise TryAgain
        return message.upper()

    async with wired(Recorder(edit)) as wire:
        await wire.phone.send(REGISTER + OPTIONS)
        expected = REGISTER + OPTIONS.upper()
        assert await wire.server.receive(len(expected)) == expected


@run
async def test_while_a_message_waits_no_more_is_read_than_fits() -> None:
    refusals = [TryAgain()]

    def edit(message: bytes) -> bytes:
        if refusals:
            raise refusals[0]
        return message

    async with wired(Recorder(edit), MAX_MESSAGE) as wire:
        flood = OPTIONS * 20_000
        sending = asyncio.ensure_future(wire.phone.send(flood))
        await asyncio.sleep(0.5)
        assert wire.pair.caller.held <= READ_SIZE + MAX_MESSAGE
        refusals.clear()
        assert await wire.server.receive(len(flood)) == flood
        await sending


@pytest.mark.parametrize("is_sip", [True, False], ids=["sip", "opaque"])
@run
async def test_a_reader_that_stalls_stops_the_writer_and_loses_nothing(is_sip: bool) -> None:
    owner = Recorder()
    message = OPTIONS if is_sip else TLS
    sent = 0
    async with wired(owner, MAX_MESSAGE, has_small_buffers=True) as wire:
        loop = asyncio.get_running_loop()
        chunk = message * 200
        with pytest.raises(TimeoutError):
            while True:
                async with asyncio.timeout(0.5):
                    await loop.sock_sendall(wire.phone.socket, chunk)
                    sent += len(chunk)
        waiting = wire.pair.called.buffered + wire.pair.caller.held
        assert waiting <= HIGH_WATER + READ_SIZE + MAX_MESSAGE
        assert sent < 20 * HIGH_WATER
        received = await wire.server.receive(sent)
        assert received == (chunk.upper() if is_sip else chunk) * (sent // len(chunk))


@run
async def test_leaving_ends_the_stream_of_both_ends() -> None:
    owner = Recorder()
    async with wired(owner) as wire:
        await wire.phone.send(OPTIONS)
        assert await wire.server.receive(len(OPTIONS)) == OPTIONS.upper()
        wire.pair.leave()
        assert await wire.phone.is_at_end()
        assert await wire.server.is_at_end()
        await wire.phone.send(OPTIONS)
        await asyncio.sleep(0.05)
        wire.phone.finish()
        wire.server.finish()
        await wire.wait_until_over()
    assert owner.closed == 1


@pytest.mark.parametrize("cut", [len(REGISTER), len(REGISTER) - 1], ids=["whole", "cut"])
@run
async def test_what_arrives_before_a_connection_has_begun_is_handed_on(cut: int) -> None:
    sent = (OPTIONS * 200 + REGISTER)[: cut - len(REGISTER) or None]

    def send_all(wire: Wire) -> None:
        wire.phone.socket.send(sent)
        wire.phone.finish()

    async with wired(Recorder(bytes), meanwhile=send_all) as wire:
        assert await wire.server.receive(len(sent)) == sent
        assert await wire.server.is_at_end()


@run
async def test_a_connection_that_is_left_before_it_has_begun_ends_cleanly() -> None:
    async with wired(Recorder(), meanwhile=lambda wire: wire.pair.leave()) as wire:
        assert await wire.phone.is_at_end()
        assert await wire.server.is_at_end()
        wire.phone.finish()
        wire.server.finish()
        await wire.wait_until_over()


@run
async def test_a_connection_that_is_reset_before_it_has_begun_is_reset_at_both_ends() -> None:
    async with wired(Recorder(), meanwhile=lambda wire: wire.pair.reset()) as wire:
        for end in (wire.phone, wire.server):
            with pytest.raises(ConnectionResetError):
                await end.is_at_end()


@run
async def test_what_arrives_after_leaving_or_waits_then_opens_nothing() -> None:
    def edit(message: bytes) -> bytes:
        if message == REGISTER:
            raise TryAgain
        return message

    owner = Recorder(edit)
    async with wired(owner) as wire:
        await wire.phone.send(REGISTER)
        await wire.server.send(RINGING[:10])
        await asyncio.sleep(0.05)
        wire.pair.leave()
        await wire.phone.send(OPTIONS)
        await wire.server.send(RINGING[10:] + TLS)
        wire.phone.finish()
        wire.server.finish()
        assert await wire.phone.is_at_end()
        assert await wire.server.is_at_end()
        await wire.wait_until_over()
    assert (owner.seen, owner.faults) == ([], [])


@run
async def test_a_direction_that_turns_opaque_after_the_other_has_ended_goes_on() -> None:
    async with wired(Recorder()) as wire:
        await wire.phone.send(OPTIONS)
        wire.phone.finish()
        assert await wire.server.receive(len(OPTIONS)) == OPTIONS.upper()
        assert await wire.server.is_at_end()
        for octets in (TLS, REGISTER):
            await wire.server.send(octets)
            assert await wire.phone.receive(len(octets)) == octets


@run
async def test_a_connection_closed_in_one_direction_and_silent_in_the_other_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(legs, "HALF_CLOSED_TIMEOUT", 0.3)
    async with wired(Recorder()) as wire:
        wire.phone.finish()
        assert await wire.server.is_at_end()
        for _ in range(4):
            await asyncio.sleep(0.15)
            await wire.server.send(RINGING)
            assert await wire.phone.receive(len(RINGING)) == RINGING.upper()
        await wire.wait_until_over()
