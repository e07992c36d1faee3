"""`./dev demo`: two phones behind one NAT call out and are called, through the real gateway.

Both phones use source port 5060 and RTP port 4000. Every step is shown and checked; the first that
does not hold is named on the last line, and the exit status is 1. The namespaces are removed
however it ends.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import Message, bare_uri, uri_endpoint, via_sent_by
from tests.lab.namespace import exit_on_signals
from tests.lab.network import EXTERNAL, Network
from tests.lab.screen import Screen
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Conversation, Site

TALK_TIME = 4.0
SETTLE_TIMEOUT = 5.0
LEAST_PACKETS = 150
MEDIA_KINDS = ("rtp", "rtcp")


class Demo:
    """The story, step by step; `step` is the one under way."""

    def __init__(self, screen: Screen) -> None:
        self.step = "start"
        self._screen = screen

    def run(self) -> None:
        """Tells the whole story; raises AssertionError in the step that does not hold."""
        with ExitStack() as stack:
            with self._step("make three network namespaces: phones, router, outside"):
                network = stack.enter_context(Network())
            with self._step("start the gateway on the router"):
                gateway = stack.enter_context(Gateway(network.router))
            self._screen.text("The gateway says:", "\n".join(gateway.log))
            self._tell(stack.enter_context(Site(network)), gateway)

    def _tell(self, site: Site, gateway: Gateway) -> None:
        phone_1, phone_2, server = site.phone_1, site.phone_2, site.server
        with self._step("both phones register, each from its port 5060"):
            for phone in (phone_1, phone_2):
                self._check_registration(site, phone)
        with self._step("phone 1 calls out"):
            sent, arrived = site.call_out(phone_1)
            self._check_invite(sent, arrived)
        self._screen.difference(
            "The INVITE as phone 1 wrote it (-), as it left (+):", sent, arrived
        )
        with self._step("the server calls phone 2 in, at the Contact that it registered"):
            called, answer = site.call_in(phone_2, sdp=server.offer(media=SERVER_MEDIA_2))
            self._check_media("the answer", media_endpoint(answer.body))
        with self._step(f"audio both ways in both calls for {TALK_TIME:g} s, 50 packets/s"):
            talks = {
                "phone 1 out": site.talk(phone_1, arrived, SERVER_MEDIA_1),
                "phone 2 in": site.talk(phone_2, answer, SERVER_MEDIA_2),
            }
            time.sleep(TALK_TIME)
        self._screen.text("Mappings while both calls are up:", gateway.show("mappings"))
        with self._step("each call has an RTP mapping of its own"):
            self._check_mappings_of_calls(gateway, {sent.call_id, called.call_id})
        for talk in talks.values():
            talk.stop()
        wait_until(lambda: all(talk.is_complete for talk in talks.values()), SETTLE_TIMEOUT)
        self._screen.table("RTP packets:", RTP_COLUMNS, rtp_rows(talks))
        with self._step("every RTP packet sent has arrived, from the mapping that SDP named"):
            for name, talk in talks.items():
                check_audio(name, talk)
        with self._step("phone 1 hangs up the first call, the server the second"):
            hang_up(phone_1, server, sent)
            hang_up(server, phone_2, called)
        with self._step("media mappings are gone, both registrations' mappings are kept"):
            wait_until(lambda: not media_rows(gateway), SETTLE_TIMEOUT)
            assert not media_rows(gateway), f"still there: {media_rows(gateway)}"
            self._check_registrations_kept(site, gateway)
        self._screen.text("Mappings after both BYEs:", gateway.show("mappings"))
        with self._step("stop the gateway: it takes its capture rules away and exits 0"):
            status = gateway.stop()
            assert status == 0, f"exit status {status}"

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        """Names what is being done, before and after; a failure inside belongs to it."""
        self.step = what
        started_at = time.monotonic()
        yield
        self._screen.done(what, time.monotonic() - started_at)

    def _check_registration(self, site: Site, phone: SipAgent) -> None:
        answer = site.register(phone)
        registered = uri_endpoint(site.server.registrations[phone.user])
        assert registered.address == EXTERNAL, f"the server learnt Contact {registered}"
        assert bare_uri(answer["Contact"]) == bare_uri(phone.contact), (
            f"{phone.user} reads Contact {answer['Contact']}, not its own"
        )

    def _check_invite(self, sent: Message, arrived: Message) -> None:
        source = arrived.source
        assert via_sent_by(arrived["Via"]) == source, f"Via {arrived['Via']} but sent from {source}"
        contact = uri_endpoint(bare_uri(arrived["Contact"]))
        assert contact == source, f"Contact {contact} but sent from {source}"
        assert arrived["From"] == sent["From"] and arrived.call_id == sent.call_id
        self._check_media("the offer", media_endpoint(arrived.body))

    def _check_media(self, what: str, media: Endpoint) -> None:
        assert media.address == EXTERNAL, f"{what} names {media}"

    def _check_mappings_of_calls(self, gateway: Gateway, calls: set[str]) -> None:
        rtp = [row for row in gateway.show_mappings() if row["kind"] == "rtp"]
        assert {row["call_id"] for row in rtp} == calls, f"RTP mappings are {rtp}"
        externals = [row["external"] for row in rtp]
        assert len(set(externals)) == len(calls), f"two calls share {externals}"

    def _check_registrations_kept(self, site: Site, gateway: Gateway) -> None:
        kept = {
            row["internal"]: row["external"]
            for row in gateway.show_mappings()
            if row["kind"] == "sip" and row["state"] == "registered"
        }
        for phone in (site.phone_1, site.phone_2):
            registered = uri_endpoint(site.server.registrations[phone.user])
            assert kept.get(str(phone.endpoint)) == str(registered), f"mappings are {kept}"


RTP_COLUMNS = ("call", "phone sent", "server got", "server sent", "phone got", "server saw")


def rtp_rows(talks: dict[str, Conversation]) -> list[tuple[str, ...]]:
    """Returns what each end sent and counted, and where the server saw the phone."""
    return [
        (
            name,
            *(str(n) for n in (talk.near.sent, talk.far.received)),
            *(str(n) for n in (talk.far.sent, talk.near.received)),
            " ".join(str(source) for source in talk.far.sources),
        )
        for name, talk in talks.items()
    ]


def check_audio(name: str, talk: Conversation) -> None:
    """Raises AssertionError unless all packets arrived, from where the peer expects them."""
    near, far = talk.near, talk.far
    assert min(near.sent, far.sent) >= LEAST_PACKETS, f"{name}: too few packets were sent"
    assert far.received == near.sent, f"{name}: {far.received} of {near.sent} at the server"
    assert near.received == far.sent, f"{name}: {near.received} of {far.sent} at the phone"
    assert set(far.sources) == {talk.external}, f"{name}: the server sees {set(far.sources)}"
    assert set(near.sources) == {far.endpoint}, f"{name}: the phone sees {set(near.sources)}"


def hang_up(caller: SipAgent, called: SipAgent, call: Message) -> None:
    """Ends a call by a BYE and its answer."""
    caller.send("BYE", call=call)
    called.reply(called.expect("BYE", call=call), 200)
    caller.expect(200, call=call)


def media_rows(gateway: Gateway) -> list[str]:
    """Returns the internal endpoints of the media mappings that stand."""
    rows = gateway.show_mappings()
    return [row["internal"] for row in rows if row["kind"] in MEDIA_KINDS]


def main() -> int:
    """Runs the demo and returns its exit status."""
    exit_on_signals()
    screen = Screen()
    demo = Demo(screen)
    started_at = time.monotonic()
    try:
        demo.run()
    except Exception as error:
        screen.failed(demo.step, str(error) or repr(error))
        return 1
    except KeyboardInterrupt:
        screen.failed(demo.step, "interrupted")
        return 130
    screen.finished(time.monotonic() - started_at)
    return 0


if __name__ == "__main__":
    sys.exit(main())
