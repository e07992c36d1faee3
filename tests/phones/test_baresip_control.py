"""The remote control of baresip, against a baresip that says what the test wants."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.phones.baresip_control import BaresipControl, ControlFailed, encode_netstring

EVENT = {"event": True, "type": "CALL_ESTABLISHED"}


@pytest.fixture
def baresip() -> Iterator[tuple[BaresipControl, socket.socket]]:
    """Yields a control, and the other end of its connection."""
    near, far = socket.socketpair()
    with BaresipControl(near) as control, far:
        yield control, far


def say(far: socket.socket, *messages: dict[str, object]) -> None:
    far.sendall(b"".join(encode_netstring(json.dumps(each).encode()) for each in messages))


def answer(data: str, *, ok: bool = True) -> dict[str, object]:
    return {"response": True, "ok": ok, "data": data}


def test_what_happens_meanwhile_is_no_answer(
    baresip: tuple[BaresipControl, socket.socket],
) -> None:
    control, far = baresip
    say(far, EVENT, answer("dialling"))
    assert control.command("dial", "sip:bob@203.0.113.10") == "dialling"
    length, _, sent = far.recv(1000).partition(b":")
    assert int(length) == len(sent) - 1
    assert json.loads(sent[:-1])["params"] == "sip:bob@203.0.113.10"


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ([answer("unknown", ok=False)], "refused 'dial': unknown"),
        ([EVENT], "did not answer 'dial'"),
    ],
)
def test_what_was_not_done_is_said(
    baresip: tuple[BaresipControl, socket.socket], said: list[dict[str, object]], complaint: str
) -> None:
    control, far = baresip
    say(far, *said)
    with pytest.raises(ControlFailed, match=complaint):
        control.command("dial", timeout=0.1)


def test_a_baresip_that_has_gone_is_said(baresip: tuple[BaresipControl, socket.socket]) -> None:
    control, far = baresip
    far.sendall(b"100:half a message")
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(ControlFailed, match="gone"):
        control.command("listcalls")
