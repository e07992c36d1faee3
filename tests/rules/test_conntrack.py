"""Entries as the kernel sends them, without a kernel."""

from __future__ import annotations

import socket
import struct

from nat_table.endpoint import Endpoint
from rules.conntrack import Flow, _parse_flow
from rules.elements import pack_endpoint
from rules.netlink import attribute, nested

PHONE, SERVER = Endpoint("10.0.0.20", 5060), Endpoint("203.0.113.10", 5061)
EXTERNAL = Endpoint("203.0.113.1", 20000)


def encode_tuple(kind: int, protocol: int, source: Endpoint, target: Endpoint) -> bytes:
    return nested(
        kind,
        nested(
            1,
            attribute(1, socket.inet_aton(source.address)),
            attribute(2, socket.inet_aton(target.address)),
        ),
        nested(
            2,
            attribute(1, bytes([protocol])),
            attribute(2, struct.pack("!H", source.port)),
            attribute(3, struct.pack("!H", target.port)),
        ),
    )


def encode_entry(protocol: int) -> bytes:
    return (
        bytes([socket.AF_INET, 0, 0, 0])
        + encode_tuple(1, protocol, PHONE, SERVER)
        + encode_tuple(2, protocol, SERVER, EXTERNAL)
        + attribute(3, b"\0\0\0\1")
    )


def test_entry_is_read() -> None:
    assert _parse_flow(encode_entry(17)) == Flow(
        17,
        pack_endpoint(PHONE),
        pack_endpoint(SERVER),
        pack_endpoint(SERVER),
        pack_endpoint(EXTERNAL),
        encode_tuple(1, 17, PHONE, SERVER),
    )


def test_other_protocols_are_left_out() -> None:
    assert _parse_flow(encode_entry(132)) is None
