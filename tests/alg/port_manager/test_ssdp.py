"""What a search finds, and what is no search."""

from __future__ import annotations

import random

import pytest

from alg.port_manager.ssdp import Offer, searched
from tests.fuzz.engine import mutations

GATEWAY = "urn:schemas-upnp-org:device:InternetGatewayDevice:2"
OFFERS = (
    Offer("upnp:rootdevice", "uuid:1::upnp:rootdevice", "http://10.0.0.1:2869/2/device.xml"),
    Offer(GATEWAY, f"uuid:1::{GATEWAY}", "http://10.0.0.1:2869/2/device.xml"),
)


def search(target: str, *, man: str = '"ssdp:discover"') -> bytes:
    """Renders a search as control points do."""
    lines = ("HOST: 239.255.255.250:1900", f"MAN: {man}", "MX: 2", f"st:{target}")
    return "\r\n".join(("M-SEARCH * HTTP/1.1", *lines, "", "")).encode()


def test_a_search_finds_one_type_or_all() -> None:
    assert searched(search(GATEWAY), OFFERS) == [OFFERS[1]]
    assert searched(search("ssdp:all"), OFFERS) == list(OFFERS)
    assert searched(search("urn:schemas-upnp-org:device:Printer:1"), OFFERS) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b'NOTIFY * HTTP/1.1\r\nMAN: "ssdp:discover"\r\nST: ssdp:all\r\n\r\n',
        b"M-SEARCH * HTTP/1.1",
        b"M-SEARCH * HTTP/1.1\r\nST: ssdp:all\r\n\r\n",
        search("ssdp:all", man="ssdp:discover"),
        search(""),
        search("ssdp:all") + b"\xff",
        search("ssdp:all") + b"X: " + b"x" * 2048,
    ],
)
def test_anything_else_finds_nothing(data: bytes) -> None:
    assert searched(data, OFFERS) == []


def test_a85_no_bytes_do_harm() -> None:
    inputs = mutations([search("ssdp:all"), search(GATEWAY)], random.Random(1))
    for _ in range(2000):
        assert len(searched(next(inputs), OFFERS)) <= len(OFFERS)
