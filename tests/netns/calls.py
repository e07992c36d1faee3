"""What tests of whole calls ask of the gateway and of the audio."""

from __future__ import annotations

import time

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import Message
from tests.lab.rtp import RtpStream
from tests.lab.site import Conversation

RELEASE_TIMEOUT = 40.0
AT_ONCE = 5.0


def media_is_released(
    gateway: Gateway, call: Message | None = None, timeout: float = RELEASE_TIMEOUT
) -> bool:
    """Tells whether no media mapping is left, of a call or at all, within the time."""

    def has_none() -> bool:
        kept = gateway.show_mappings("rtp", "rtcp")
        return all(call is not None and row["call_id"] != call.call_id for row in kept)

    return wait_until(has_none, timeout)


def media_internals(gateway: Gateway) -> set[str]:
    """Returns the internal endpoints that have a mapping for RTP."""
    return {row["internal"] for row in gateway.show_mappings("rtp")}


def hears(stream: RtpStream, source: Endpoint, packets: int = 20) -> bool:
    """Tells whether more packets than that arrive from a source."""
    return wait_until(lambda: stream.sources[source] > packets, AT_ONCE)


def check_audio(talk: Conversation, seconds: float = 1.0) -> None:
    """Talks on for a while, then checks that every packet arrived from where SDP says."""
    time.sleep(seconds)
    talk.stop()
    assert wait_until(lambda: talk.is_complete, 2.0), (talk.near.sent, talk.far.sent, talk.counts())
    assert talk.near.sent > 40 * seconds
    assert set(talk.far.sources) == {talk.external}
    assert set(talk.near.sources) == {talk.far.endpoint}
