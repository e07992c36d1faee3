"""What the phones do: each scenario is a column of the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.interop.stage import Stage

SESSION_TIMER_TIMEOUT = 75.0
"""The least that a session timer may be is 90 s, and it is renewed after half of that."""


def register(stage: Stage) -> None:
    """Alice registers, with a password."""
    stage.phone("alice")


def call_out(stage: Stage) -> None:
    """Alice calls carol, and hangs up."""
    stage.connect("alice", "carol")
    stage.end("alice", "carol")


def call_in(stage: Stage) -> None:
    """Carol calls alice, and hangs up."""
    stage.phone("alice")
    stage.connect("carol", "alice")
    stage.end("carol", "alice")


def call_inside(stage: Stage) -> None:
    """Alice calls bob, who is behind the same NAT, and hangs up."""
    stage.connect("alice", "bob")
    stage.end("alice", "bob")


def hold(stage: Stage) -> None:
    """Alice puts carol on hold and takes her back."""
    stage.connect("alice", "carol")
    alice = stage.phone("alice")
    stage.expect_renewal("carol", alice.hold)
    stage.expect_renewal("carol", alice.resume)
    stage.talk("alice", "carol")
    stage.end("alice", "carol")


def transfer(stage: Stage) -> None:
    """Alice sends carol to bob, and is out of it."""
    bob = stage.phone("bob")
    stage.connect("alice", "carol")
    stage.phone("alice").transfer("bob")
    bob.wait_for_call()
    stage.talk("carol", "bob")
    stage.end("carol", "bob")


def with_stun(stage: Stage) -> None:
    """Alice writes into her SDP what a STUN server has told her."""
    stage.add_stun()
    call_out(stage)


def with_ice(stage: Stage) -> None:
    """Alice and carol find their way by themselves (RFC 8445)."""
    stage.add_stun()
    stage.account = replace(stage.account, has_ice=True)
    call_out(stage)


def with_srtp(stage: Stage) -> None:
    """Alice and carol take nothing but SRTP."""
    stage.account = replace(stage.account, has_srtp=True)
    call_out(stage)


def with_session_timer(stage: Stage) -> None:
    """Alice and carol renew their call (RFC 4028)."""
    stage.account = replace(stage.account, has_session_timer=True)
    stage.connect("alice", "carol")
    stage.expect_renewal("carol", lambda: None, SESSION_TIMER_TIMEOUT)
    stage.talk("alice", "carol")
    stage.end("alice", "carol")


SCENARIOS: dict[str, Callable[[Stage], None]] = {
    "register": register,
    "outgoing": call_out,
    "incoming": call_in,
    "LAN-to-LAN": call_inside,
    "hold": hold,
    "transfer": transfer,
    "STUN": with_stun,
    "ICE": with_ice,
    "SRTP": with_srtp,
    "session timers": with_session_timer,
}
