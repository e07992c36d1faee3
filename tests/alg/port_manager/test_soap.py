"""Whatever comes as a call of an action: the right answer, and nothing opened by mistake."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from alg.port_manager.igd import PortMappings
from alg.port_manager.igd_device import WanIpConnection, gateway_device
from alg.port_manager.leases import LeaseLimits, Leases
from alg.port_manager.upnp import control
from tests.fuzz.engine import mutations
from tests.nat_table.phones import new_table

CLIENT = "10.0.0.20"
TYPE = "urn:schemas-upnp-org:service:WANIPConnection:2"
ENTRY = {
    "NewRemoteHost": "",
    "NewExternalPort": "5000",
    "NewProtocol": "UDP",
    "NewInternalPort": "4000",
    "NewInternalClient": CLIENT,
    "NewEnabled": "1",
    "NewPortMappingDescription": "a &lt;game&gt;",
    "NewLeaseDuration": "3600",
}


class CalledService:
    """A gateway's WANIPConnection without a socket."""

    def __init__(self) -> None:
        self.table = new_table()
        leases = Leases(self.table, LeaseLimits(), lambda: self.table.take_changes())
        self.mappings = PortMappings(leases, is_secure=True)
        device = gateway_device(2, "02:00:00:00:00:01", "http://10.0.0.1:2869", self.mappings)
        (self.service,) = (
            each for each in device.all_services if isinstance(each, WanIpConnection)
        )

    def call(self, action: str, body: bytes | Mapping[str, str]) -> tuple[int, str]:
        """Returns status and body of the answer to a call."""
        data = body if isinstance(body, bytes) else envelope(action, body)

        async def text() -> str:
            return data.decode()

        headers = {"SOAPAction": f'"{TYPE}#{action}"'}
        request = cast(web.Request, SimpleNamespace(headers=headers, text=text, remote=CLIENT))
        try:
            answer = cast(web.Response, asyncio.run(cast(Any, control(self.service)(request))))
        except web.HTTPException as refusal:
            return refusal.status, ""
        return answer.status, cast(bytes, answer.body).decode()


def envelope(action: str, arguments: Mapping[str, str]) -> bytes:
    """Renders a call."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in arguments.items())
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">'
        f'<s:Body><u:{action} xmlns:u="{TYPE}">{inner}</u:{action}></s:Body></s:Envelope>'
    ).encode()


@pytest.fixture
def service() -> CalledService:
    return CalledService()


def code_of(answer: tuple[int, str]) -> int:
    """Returns the number of a fault."""
    status, text = answer
    found = re.search(r"<errorCode>([0-9]+)</errorCode>", text)
    assert status == 500 and found, answer
    return int(found[1])


def test_an_entry_comes_back_as_it_went(service: CalledService) -> None:
    assert service.call("AddPortMapping", ENTRY)[0] == 200
    status, text = service.call("GetGenericPortMappingEntry", {"NewPortMappingIndex": "0"})
    assert status == 200
    for name, value in ENTRY.items():
        shown = r"3[56][0-9]{2}" if name == "NewLeaseDuration" else re.escape(value)
        assert re.search(rf"<{name}>{shown}</{name}>|<{name} />", text), name


@pytest.mark.parametrize(
    ("code", "action", "changed"),
    [
        (401, "Reboot", {}),
        (402, "AddPortMapping", {"NewLeaseDuration": "soon"}),
        (402, "AddPortMapping", {"NewLeaseDuration": "-1"}),
        (402, "AddPortMapping", {"NewExternalPort": "65536"}),
        (402, "AddPortMapping", {"NewExternalPort": "9" * 5000}),
        (402, "AddPortMapping", {"NewInternalPort": ""}),
        (402, "AddPortMapping", {"NewProtocol": "SCTP"}),
        (402, "AddPortMapping", {"NewExtra": "1"}),
        (402, "DeletePortMapping", {}),
        (501, "AddPortMapping", {"NewEnabled": "0"}),
        (606, "AddPortMapping", {"NewInternalClient": "10.0.0.21"}),
        (716, "AddPortMapping", {"NewExternalPort": "0"}),
        (732, "AddPortMapping", {"NewInternalPort": "0"}),
    ],
)
def test_a_wrong_call_is_a_fault(
    service: CalledService, code: int, action: str, changed: Mapping[str, str]
) -> None:
    assert code_of(service.call(action, {**ENTRY, **changed})) == code
    assert not len(service.table)


def test_a_missing_argument_is_a_fault(service: CalledService) -> None:
    for missing in ENTRY:
        rest = {name: value for name, value in ENTRY.items() if name != missing}
        assert code_of(service.call("AddPortMapping", rest)) == 402
    assert not len(service.table)


BOMB = b"""<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>&b;</s:Body></s:Envelope>"""


@pytest.mark.parametrize("body", [b"", b"<", b"<a/>", b"\xff\xfe", BOMB, b"<a>" * 5000])
def test_what_is_no_call_is_refused(service: CalledService, body: bytes) -> None:
    assert service.call("AddPortMapping", body)[0] == 400
    assert not len(service.table)


def test_a85_mutated_calls_open_nothing_that_was_not_asked_for(service: CalledService) -> None:
    seeds = [
        envelope("AddPortMapping", ENTRY),
        envelope("DeletePortMapping", dict(list(ENTRY.items())[:3])),
        envelope("GetGenericPortMappingEntry", {"NewPortMappingIndex": "0"}),
    ]
    inputs = mutations(seeds, random.Random(1))
    actions = ("AddPortMapping", "AddAnyPortMapping", "DeletePortMapping")
    opened = 0
    for number in range(1500):
        answer = service.call(actions[number % 3], next(inputs))
        assert answer[0] in (200, 400) or code_of(answer) in range(401, 734)
        opened += len(service.table)
        for binding in list(service.table.bindings()):
            assert binding.internal.address == CLIENT
            assert min(binding.internal.port, binding.external.port) >= 1024
    assert opened, "none was near enough to a call"
