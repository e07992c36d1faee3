"""`./dev demo`: two phones behind one NAT call out and are called, through the real gateway.

Both phones use source port 5060 and RTP port 4000. Every step is shown and checked; the first that
does not hold is named on the last line, and the exit status is 1. The namespaces are removed
however it ends.

    --tcp     the same story, the phones' signalling by TCP connections through the relay
    --ipv6    the same story at a routed site: the gateway opens a stateful firewall, and changes
              no byte
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, receive_all, wait_until
from tests.lab.carrier import TcpCarrier
from tests.lab.gateway import Gateway
from tests.lab.message import Message, bare_uri, uri_endpoint, via_sent_by
from tests.lab.namespace import exit_on_signals
from tests.lab.network import (
    EXTERNAL,
    LAN_ROUTED6,
    SERVER6,
    STATEFUL_FIREWALL6,
    Network,
)
from tests.lab.screen import Screen
from tests.lab.sdp import media_endpoint
from tests.lab.site import Conversation, Site

TALK_TIME = 4.0
SETTLE_TIMEOUT = 5.0
LEAST_PACKETS = 150
MEDIA_KINDS = ("rtp", "rtcp")


class Demo:
    """The story, step by step, over UDP and IPv4 or another way; `step` is the one under way."""

    def __init__(self, screen: Screen, *, is_tcp: bool = False, is_ipv6: bool = False) -> None:
        self.step = "start"
        self._screen = screen
        self._is_tcp = is_tcp
        self._is_ipv6 = is_ipv6

    def run(self) -> None:
        """Tells the whole story; raises AssertionError in the step that does not hold."""
        with ExitStack() as stack:
            with self._step("make three network namespaces: phones, router, outside"):
                network = stack.enter_context(Network(lan6=LAN_ROUTED6 if self._is_ipv6 else ""))
            if self._is_ipv6:
                with self._step("have the router drop what comes in unasked, over IPv6"):
                    network.router.run("nft", "-f", "-", text=STATEFUL_FIREWALL6)
            with self._step("start the gateway on the router"):
                gateway = stack.enter_context(Gateway(network.router))
            self._screen.text("The gateway says:", "\n".join(gateway.log))
            self._tell(stack.enter_context(self._people(network)), gateway)

    def _people(self, network: Network) -> Site:
        """Returns the phones and the server, as the story wants them."""
        if self._is_ipv6:
            phones = (f"{LAN_ROUTED6}20", f"{LAN_ROUTED6}21")
            return Site(network, phones=phones, server=SERVER6)
        return Site(network, transport="tcp" if self._is_tcp else "udp")

    def _tell(self, site: Site, gateway: Gateway) -> None:
        phone_1, phone_2, server = site.phone_1, site.phone_2, site.server
        if self._is_ipv6:
            with self._step("nobody outside reaches the phones' audio ports"):
                assert not reaches(site, phone_1.media), f"{phone_1.media} is open"
        how = "by a connection" if self._is_tcp else "from its port 5060"
        with self._step(f"both phones register, each {how}"):
            for phone in (phone_1, phone_2):
                self._check_registration(site, phone)
        with self._step("phone 1 calls out"):
            sent, arrived = site.call_out(phone_1)
            self._check_invite(site, sent, arrived)
        if self._is_ipv6:
            self._screen.text("The INVITE, as phone 1 wrote it and as it left:", str(sent))
        else:
            self._screen.difference(
                "The INVITE as phone 1 wrote it (-), as it left (+):", sent, arrived
            )
        with self._step("the server calls phone 2 in, at the Contact that it registered"):
            called, answer = site.call_in(phone_2, sdp=server.offer(media=site.server_media_2))
            self._check_media(phone_2, "the answer", media_endpoint(answer.body))
        with self._step(f"audio both ways in both calls for {TALK_TIME:g} s, 50 packets/s"):
            talks = {
                "phone 1 out": site.talk(phone_1, arrived, site.server_media_1),
                "phone 2 in": site.talk(phone_2, answer, site.server_media_2),
            }
            time.sleep(TALK_TIME)
        self._screen.text("Mappings while both calls are up:", gateway.show("mappings"))
        if self._is_tcp:
            self._screen.text("Connections:", gateway.show("connections"))
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
        if self._is_ipv6:
            with self._step("the firewall is closed again"):
                for talk in talks.values():
                    talk.close()
                assert not reaches(site, phone_1.media), f"{phone_1.media} is open"
        with self._step("stop the gateway: it takes its capture rules away and exits 0"):
            status = gateway.stop()
            assert status == 0, f"exit status {status}"
        if self._is_tcp:
            with self._step("phones and server have seen their connections end"):
                for agent in (phone_1, phone_2, server):
                    check_disconnected(agent)

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
        assert registered.address == self._external_address(phone), (
            f"the server learnt Contact {registered}"
        )
        assert bare_uri(answer["Contact"]) == bare_uri(phone.contact), (
            f"{phone.user} reads Contact {answer['Contact']}, not its own"
        )

    def _external_address(self, phone: SipAgent) -> str:
        """Returns the address that stands for a phone."""
        return phone.endpoint.address if self._is_ipv6 else EXTERNAL

    def _check_invite(self, site: Site, sent: Message, arrived: Message) -> None:
        phone, source = site.phone_1, arrived.source
        registered = uri_endpoint(site.server.registrations[phone.user])
        assert source.address == self._external_address(phone), f"sent from {source}"
        assert self._is_tcp or source == registered, f"sent from {source}, not {registered}"
        via, contact = via_sent_by(arrived["Via"]), uri_endpoint(bare_uri(arrived["Contact"]))
        assert via == contact == registered, f"Via {via} and Contact {contact}, not {registered}"
        assert arrived["From"] == sent["From"] and arrived.call_id == sent.call_id
        assert not self._is_ipv6 or arrived.raw == sent.raw, "a byte has changed"
        self._check_media(phone, "the offer", media_endpoint(arrived.body))

    def _check_media(self, phone: SipAgent, what: str, media: Endpoint) -> None:
        assert media.address == self._external_address(phone), f"{what} names {media}"

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


def reaches(site: Site, media: Endpoint) -> bool:
    """Tells whether a datagram that belongs to no flow arrives at a phone's audio port."""
    near = site.network.lan.udp_socket(*media)
    far = site.network.wan.udp_socket(site.server_media_1.address)
    with near, far:
        far.sendto(b"hello", media)
        return bool(receive_all(near))


def check_disconnected(agent: SipAgent) -> None:
    """Raises AssertionError unless every connection of an agent ends."""
    assert isinstance(agent.carrier, TcpCarrier)
    connections = agent.carrier.connections
    ended = wait_until(lambda: not connections, SETTLE_TIMEOUT)
    assert ended, f"{agent.user} still has connections to {list(connections)}"


def media_rows(gateway: Gateway) -> list[str]:
    """Returns the internal endpoints of the media mappings that stand."""
    rows = gateway.show_mappings()
    return [row["internal"] for row in rows if row["kind"] in MEDIA_KINDS]


def main() -> int:
    """Runs the demo and returns its exit status."""
    parser = argparse.ArgumentParser(prog="./dev demo", description="The gateway at work.")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--tcp", action="store_true", help="the phones' signalling goes over TCP")
    way.add_argument("--ipv6", action="store_true", help="a routed site behind a firewall")
    chosen = parser.parse_args()
    exit_on_signals()
    screen = Screen()
    demo = Demo(screen, is_tcp=chosen.tcp, is_ipv6=chosen.ipv6)
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
