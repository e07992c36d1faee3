"""Who lives in the lab: two phones with the same ports, and a SIP server outside.

Both phones use source port 5060 and RTP port 4000, as phones of one model do: the case that
simple gateways get wrong.
"""

from __future__ import annotations

from contextlib import ExitStack

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, wait_until
from tests.lab.closable import Closable
from tests.lab.message import Message
from tests.lab.namespace import Namespace
from tests.lab.network import PHONE_1, PHONE_2, SERVER, Network
from tests.lab.rtp import RtpStream
from tests.lab.sdp import media_endpoint
from tests.lab.server import Server

PROXY = Endpoint(SERVER, 5060)
SERVER_MEDIA_1 = Endpoint(SERVER, 40000)
SERVER_MEDIA_2 = Endpoint(SERVER, 40002)


class Site(Closable):
    """The agents of one network, closed together.

    They speak over `transport`, and over IPv6 where these are the addresses given.
    """

    def __init__(
        self,
        network: Network,
        *,
        transport: str = "udp",
        phones: tuple[str, str] = (PHONE_1, PHONE_2),
        server: str = SERVER,
    ) -> None:
        self.network = network
        self.server_media_1 = Endpoint(server, SERVER_MEDIA_1.port)
        self.server_media_2 = Endpoint(server, SERVER_MEDIA_2.port)
        self._transport = transport
        self._proxy = Endpoint(server, PROXY.port)
        self._stack = ExitStack()
        self.phone_1 = self.add_phone("phone1", phones[0])
        self.phone_2 = self.add_phone("phone2", phones[1])
        self.server = self._stack.enter_context(Server(network.wan, server, transport=transport))

    def close(self) -> None:
        """Closes the agents and their audio."""
        self._stack.close()

    def register(self, phone: SipAgent, *, expires: int = 3600) -> Message:
        """Registers a phone and returns the 200 as the phone got it."""
        phone.register(expires=expires)
        self.server.accept_registration(expires=expires)
        return phone.expect(200)

    def add_phone(self, user: str, address: str) -> SipAgent:
        """Makes one more phone, at an address that the network has."""
        return self._stack.enter_context(
            SipAgent(self.network.lan, user, address, proxy=self._proxy, transport=self._transport)
        )

    def call_out(
        self, phone: SipAgent, *, sdp: bytes = b"", answer: bytes = b""
    ) -> tuple[Message, Message]:
        """Sets up a call from a phone; returns the INVITE as sent and as the server got it."""
        sent = phone.send("INVITE", self.server.address_of_record, sdp=sdp or phone.offer())
        arrived = self.server.expect("INVITE", call=sent)
        self.server.reply(arrived, 180)
        phone.expect(180, call=sent)
        self.server.reply(arrived, 200, sdp=answer or self.server.offer())
        phone.expect(200, call=sent)
        phone.send("ACK", call=sent)
        self.server.expect("ACK", call=sent)
        return sent, arrived

    def call_in(self, phone: SipAgent, sdp: bytes = b"") -> tuple[Message, Message]:
        """Sets up a call to a registered phone; returns the INVITE and the 200 at the server."""
        sent = self.server.call(phone.user, sdp=sdp)
        arrived = phone.expect("INVITE", call=sent)
        phone.reply(arrived, 180)
        self.server.expect(180, call=sent)
        phone.reply(arrived, 200, sdp=phone.offer())
        answered = self.server.expect(200, call=sent)
        self.server.send("ACK", call=sent)
        phone.expect("ACK", call=sent)
        return sent, answered

    def hang_up(self, caller: SipAgent, called: SipAgent, call: Message) -> None:
        """Ends a call, whichever side began it."""
        caller.send("BYE", call=call)
        called.reply(called.expect("BYE", call=call), 200)
        caller.expect(200, call=call)

    def talk(
        self,
        phone: SipAgent,
        offered: Message,
        server_media: Endpoint,
        *,
        media: Endpoint | None = None,
    ) -> Conversation:
        """Starts audio both ways: the server sends to where the phone's SDP, as it came, says.

        The phone's own endpoint is its usual one, or `media`.
        """
        near = self.listen(self.network.lan, media or phone.media)
        far = self.listen(self.network.wan, server_media)
        conversation = Conversation(near, far, media_endpoint(offered.body))
        near.send_to(server_media)
        far.send_to(conversation.external)
        return conversation

    def listen(self, namespace: Namespace, endpoint: Endpoint) -> RtpStream:
        """Opens one end of an audio stream, which sends when it is told to."""
        return self._stack.enter_context(RtpStream(namespace, endpoint))


class Conversation(Closable):
    """The two ends of one call's audio; `external` is where the outside believes the phone is."""

    def __init__(self, near: RtpStream, far: RtpStream, external: Endpoint) -> None:
        self.near = near
        self.far = far
        self.external = external

    @property
    def is_complete(self) -> bool:
        """Whether all that was sent has arrived."""
        return (self.near.received, self.far.received) == (self.far.sent, self.near.sent)

    def close(self) -> None:
        """Closes both ends."""
        self.near.close()
        self.far.close()

    def stop(self) -> None:
        """Stops both ends sending; they go on counting."""
        self.near.stop()
        self.far.stop()

    def flows_on(self, packets: int = 40, timeout: float = 5.0) -> bool:
        """Tells whether that many more packets arrive at both ends in time."""
        near, far = self.counts()
        return wait_until(
            lambda: self.near.received >= near + packets and self.far.received >= far + packets,
            timeout,
        )

    def counts(self) -> tuple[int, int]:
        """Returns how many packets have arrived at the phone and at the server."""
        return self.near.received, self.far.received
