"""The properties of test_abnf_properties.py for phones that write IPv6, in whatever spelling."""

from __future__ import annotations

from hypothesis import assume, given

from alg.gateway_settings import GatewaySettings
from alg.sip.span import apply_edits
from alg.verdict import Outcome, Reason
from nat_table.endpoint import Endpoint
from tests.alg.abnf import Message, messages
from tests.alg.abnf_sdp import default_world
from tests.alg.abnf_text import World
from tests.alg.playbook import EXTERNAL, EXTERNAL6, PHONE6, SERVER6, Playbook
from tests.alg.test_abnf_properties import expected, few, with_received

MEDIA_HOST = "fd00:1::30"
SETTINGS = GatewaySettings((EXTERNAL,), media_hosts=frozenset((MEDIA_HOST,)))


def world(*spellings: str) -> World:
    """Returns a world in which the phone writes its address in these ways, and decoys of it."""
    decoys = (
        "[fd00:1::21]",
        "[fd00:1::2]",
        "[fd00:1:::20]",
        "[::ffff:fd00:1:20]",
        "[fd00:1::20:1]",
    )
    return World(
        tuple(f"[{spelling}]" for spelling in spellings),
        (*spellings, MEDIA_HOST),
        (*default_world().foreign, *decoys),
        (5060, 5062, 5061, 40000),
        None,
        False,
    )


ANY_SPELLING = world("fd00:1::20", "FD00:1:0::20", "fd00:0001:0:0:0:0:0:0020", "fd00:1::0.0.0.32")


def sent(play: Playbook, data: bytes, source: Endpoint = PHONE6) -> Outcome:
    outcome = play.outbound(data, source, SERVER6)
    assume(outcome.reason is not Reason.NO_FREE_PORT)
    assert outcome.reason in (Reason.REWRITTEN, Reason.NOTHING_TO_CHANGE, Reason.ENCODED_BODY)
    assert outcome.payload == apply_edits(data, outcome.edits)
    return outcome


@few
@given(messages(ANY_SPELLING))
def test_a04_a59_only_what_names_the_phone_changes_and_all_of_that(message: Message) -> None:
    play = Playbook(settings=SETTINGS, mode6="nat66")
    assert sent(play, message.data).payload == expected(play, message)


@few
@given(messages(ANY_SPELLING))
def test_a17_a59_rewriting_twice_changes_nothing_more(message: Message) -> None:
    play = Playbook(settings=SETTINGS, mode6="nat66")
    payload = sent(play, message.data).payload
    for source in (PHONE6, Endpoint("fd00:1::99", 5060), Endpoint(EXTERNAL6, 5060)):
        again = play.outbound(payload, source, SERVER6)
        assert (again.payload, again.edits) == (payload, ())


@few
@given(messages(world("fd00:1::20"), is_echoed=True, kind="request"))
def test_a13_a59_what_comes_back_reads_as_the_phone_wrote_it(message: Message) -> None:
    for mode6 in ("nat66", "nptv6", "pinhole"):
        play = Playbook(settings=SETTINGS, mode6=mode6)
        payload = sent(play, message.data).payload
        begin = message.data.index(message.fields[0][1])
        echo, wrote = payload[begin:], message.data[begin:]
        for by_server in (b"", b";received=[2001:db8:e::1];rport=5060", b";received=2001:db8:e::1"):
            answer = b"SIP/2.0 200 OK\r\n"
            came = play.inbound(answer + with_received(echo, by_server), PHONE6, SERVER6)
            assert came.payload == answer + with_received(wrote, by_server), mode6


@few
@given(messages(ANY_SPELLING))
def test_a59_no_byte_of_a_routed_message_changes(message: Message) -> None:
    play = Playbook(settings=SETTINGS, mode6="pinhole")
    assert sent(play, message.data).edits == ()
    assert all(binding.internal == binding.external for binding in play.table.bindings())
