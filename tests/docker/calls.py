"""The calls of the lab, by name: each is made by real phones, counted at both ends, and ended.

A call that does not carry audio both ways, or leaves a port open, raises AssertionError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.docker.lab import Lab
from tests.docker.phone import ContainerPhone
from tests.lab.agents import wait_until
from tests.phones.counts import Counts
from tests.phones.phone import PhoneFailed

Ends = dict[str, Counts]
"""Phone to what it has sent and got."""

TALK_TIME = 6.0  # baresip reports by RTCP every 5 s
PART_TIME = 2.0
CHANGE_TIMEOUT = 15.0
LEAST_PER_SECOND = 40
IN_FLIGHT = 10
"""As many packets may be on their way when a call begins or ends."""


def call(lab: Lab, caller: str, called: str) -> Ends:
    """One phone calls another, both are heard, and the caller hangs up."""
    with phones(lab, caller, called) as (near, far), counted(near, far) as ends:
        talk(near, far)
        end(lab, near, far)
    check_audio(ends, TALK_TIME)
    return ends


def outgoing(lab: Lab) -> Ends:
    """A phone behind the router calls one outside."""
    return call(lab, "phone1", "phone3")


def incoming(lab: Lab) -> Ends:
    """A phone outside calls one behind the router, by the Contact that it registered."""
    return call(lab, "phone3", "phone1")


def lan_to_lan(lab: Lab) -> Ends:
    """Two phones behind the router call each other by way of the registrar outside."""
    return call(lab, "phone1", "phone2")


def tcp(lab: Lab) -> Ends:
    """Outgoing and incoming, with the signalling over TCP."""
    with phones(lab, "phone1", "phone3") as (near, far):
        for phone in (near, far):
            phone.use_tcp()
            lab.wait_for_registration(phone.user)
        try:
            with counted(near, far) as ends:
                talk(near, far)
                end(lab, near, far)
                talk(far, near)
                end(lab, far, near)
        finally:
            for phone in (near, far):
                phone.use_udp()
    check_audio(ends, 2 * TALK_TIME)
    return ends


def hold(lab: Lab) -> Ends:
    """A call is put on hold, and taken back."""
    with phones(lab, "phone1", "phone3") as (near, far), counted(near, far) as ends:
        talk(near, far)
        near.hold()
        wait_for_silence(far)
        near.resume()
        wait_for_audio(near, far)
        end(lab, near, far)
    check_audio(ends, TALK_TIME)
    return ends


def transfer(lab: Lab) -> Ends:
    """A phone behind the router hands its call with one outside over to its neighbour."""
    with (
        phones(lab, "phone1", "phone3", "phone2") as (near, far, neighbour),
        counted(near, far, neighbour) as ends,
    ):
        talk(near, far)
        near.transfer(neighbour.user)
        neighbour.wait_for_call()
        time.sleep(TALK_TIME)
        end(lab, far, neighbour)
    check_speaking(ends, TALK_TIME)
    got = ends["phone1"].rtp_received + ends["phone2"].rtp_received
    check_arrived("phone3", ends["phone3"].rtp_sent, got)
    return ends


def killed(lab: Lab) -> Ends:
    """The router's daemon is killed in mid-call, and starts again; no audio is lost."""
    with phones(lab, "phone1", "phone3") as (near, far), counted(near, far) as ends:
        talk(near, far)
        with counted(near, far) as meanwhile:
            started_at = time.monotonic()
            lab.kill_daemon()
            time.sleep(PART_TIME)
            seconds = time.monotonic() - started_at
        end(lab, near, far)
    check_speaking(meanwhile, seconds)
    check_audio(ends, TALK_TIME + seconds)
    return ends


def restarted(lab: Lab) -> Ends:
    """The router's container is restarted in mid-call, and the call goes on."""
    with phones(lab, "phone1", "phone3") as (near, far), counted(near, far) as ends:
        talk(near, far)
        lab.restart_router()
        wait_for_audio(near, far)
        end(lab, near, far)
    return ends


CALLS: dict[str, Callable[[Lab], Ends]] = {
    "outgoing": outgoing,
    "incoming": incoming,
    "lan-to-lan": lan_to_lan,
    "hold": hold,
    "transfer": transfer,
    "tcp": tcp,
    "killed": killed,
    "restarted": restarted,
}


@contextmanager
def phones(lab: Lab, *names: str) -> Iterator[tuple[ContainerPhone, ...]]:
    """Takes hold of phones; whatever goes wrong, they hang up."""
    with ExitStack() as stack:
        taken = tuple(stack.enter_context(lab.phone(name)) for name in names)
        try:
            yield taken
        except BaseException:
            for phone in taken:
                with suppress(PhoneFailed):
                    phone.hang_up()
            raise


@contextmanager
def counted(*ends: ContainerPhone) -> Iterator[Ends]:
    """Yields what is filled, when the block ends, with what passed each end meanwhile."""
    before = {end.name: end.counts() for end in ends}
    meanwhile: Ends = {}
    yield meanwhile
    meanwhile.update({end.name: end.counts().since(before[end.name]) for end in ends})


def talk(caller: ContainerPhone, called: ContainerPhone) -> None:
    """Makes a call, and lets both sides talk."""
    caller.call(called.user)
    called.wait_for_call()
    time.sleep(TALK_TIME)


def end(lab: Lab, leaving: ContainerPhone, other: ContainerPhone) -> None:
    """Hangs up, and returns when neither phones nor router know of a call."""
    leaving.hang_up()
    for phone in (leaving, other):
        phone.wait_for_end()
    lab.wait_for_no_call()


def listen(*ends: ContainerPhone) -> Ends:
    """Returns what passes each end in PART_TIME."""
    with counted(*ends) as meanwhile:
        time.sleep(PART_TIME)
    return meanwhile


def wait_for_silence(phone: ContainerPhone) -> None:
    """Returns when a phone sends no audio any more; raises AssertionError."""
    if not wait_until(lambda: listen(phone)[phone.name].rtp_sent <= IN_FLIGHT, CHANGE_TIMEOUT):
        raise AssertionError(f"{phone.name} speaks on hold")


def wait_for_audio(*phones: ContainerPhone) -> None:
    """Returns when all send and get audio; raises AssertionError."""

    def are_speaking() -> bool:
        return all(is_speaking(counts, PART_TIME) for counts in listen(*phones).values())

    if not wait_until(are_speaking, CHANGE_TIMEOUT):
        check_speaking(listen(*phones), PART_TIME)


def is_speaking(counts: Counts, seconds: float) -> bool:
    """Tells whether an end has sent and got audio for all of the time."""
    return min(counts.rtp_sent, counts.rtp_received) >= LEAST_PER_SECOND * seconds


def check_speaking(ends: Ends, seconds: float) -> None:
    """Raises AssertionError unless every end has sent and got audio for all of the time."""
    for name, counts in ends.items():
        assert is_speaking(counts, seconds), f"{name} has a gap within {seconds:.0f} s: {counts}"


def check_audio(ends: Ends, seconds: float) -> None:
    """Raises AssertionError unless what each of two ends has sent has come to the other."""
    check_speaking(ends, seconds)
    (near_name, near), (far_name, far) = ends.items()
    check_arrived(near_name, near.rtp_sent, far.rtp_received)
    check_arrived(far_name, far.rtp_sent, near.rtp_received)
    for name, counts in ends.items():
        assert counts.rtcp_sent and counts.rtcp_received, f"{name} has no RTCP both ways: {counts}"


def check_arrived(name: str, sent: int, got: int) -> None:
    """Raises AssertionError if more than what was in flight is lost of what an end has sent."""
    assert sent - got <= IN_FLIGHT, f"of {sent} packets of {name} {got} arrived"
