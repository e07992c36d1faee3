"""What the drivers make of lines that linphone's daemon and the pjsua process have printed."""

from __future__ import annotations

import json
from typing import cast

import pytest

from tests.lab.namespace import Namespace
from tests.phones.linphone import Linphone, render_configuration
from tests.phones.phone import Account
from tests.phones.pjsua import Pjsua
from tests.phones.program import CallState

ACCOUNT = Account("alice", "alice-secret", "203.0.113.10", "tcp")
NOWHERE = cast(Namespace, None)


@pytest.mark.parametrize(
    ("event", "state"),
    [
        ("OutgoingProgress", CallState.BEGUN),
        ("Paused", CallState.HELD),
        ("PausedByRemote", CallState.HELD_BY_OTHER),
        ("Connected", CallState.BEGUN),
    ],
)
def test_an_event_of_linphone_is_a_state(event: str, state: CallState) -> None:
    with Linphone(NOWHERE, "10.0.0.20", ACCOUNT) as phone:
        for line in ("Event-type: call-state-changed", f"Event: LinphoneCall{event}", "Id: 2"):
            phone.heed(line)
        assert phone.calls == {2: state}


def test_a_number_in_an_answer_of_linphone_is_no_event() -> None:
    with Linphone(NOWHERE, "10.0.0.20", ACCOUNT) as phone:
        for line in ("Status: Ok", "Id: 1", "State: LinphoneRegistrationOk"):
            phone.heed(line)
        assert (phone.calls, phone.is_registered) == ({}, True)


def test_a_call_of_linphone_ends_twice() -> None:
    with Linphone(NOWHERE, "10.0.0.20", ACCOUNT) as phone:
        for event in ("Connected", "End", "Released"):
            for line in (f"Event: LinphoneCall{event}", "Id: 1"):
                phone.heed(line)
        assert phone.calls == {}


def test_linphone_is_configured_for_its_account() -> None:
    lines = render_configuration(ACCOUNT).splitlines()
    assert "reg_proxy=<sip:203.0.113.10;transport=tcp>" in lines
    assert "protocols=" in lines


def test_events_of_pjsua_are_states() -> None:
    with Pjsua(NOWHERE, "10.0.0.20", ACCOUNT) as phone:
        for event in (
            ["registration", 200, "OK"],
            ["call", 0],
            ["media", 0, "active"],
            ["call", 1],
        ):
            phone.heed(json.dumps(event))
        assert phone.is_registered
        assert phone.calls == {0: CallState.UP, 1: CallState.BEGUN}
        phone.heed('["end", 0, 200, "OK"]')
        phone.heed("12:00:00.000  pjsua_core.c  a line of its log")
        assert phone.calls == {1: CallState.BEGUN}
