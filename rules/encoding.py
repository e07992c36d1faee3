"""Netlink requests as bytes: attributes, messages, and the steps of an nftables transaction.

Neighbouring steps that all add to one set, or all delete from it, are one message with many
elements, and so are those with steps of other sets between them: within one direction the order of
elements does not matter. Between additions and deletions it does, and is kept. What every element
of a size begins with is the same, so it is packed once.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final

from rules.elements import INTERVALS, Step

REQUEST: Final = 0x1
ACK: Final = 0x4
ECHO: Final = 0x8
CREATE: Final = 0x400
NESTED: Final = 0x8000

NFTABLES: Final = 10 << 8
BATCH_BEGIN: Final = 0x10
BATCH_END: Final = 0x11
NEW_ELEMENT: Final = NFTABLES | 12
GET_ELEMENT: Final = NFTABLES | 13
DELETE_ELEMENT: Final = NFTABLES | 14
DESTROY_ELEMENT: Final = NFTABLES | 30
FAMILY_INET: Final = 1

HEADER: Final = struct.Struct("=IHHII")
ATTRIBUTE: Final = struct.Struct("=HH")

KEY, DATA, KEY_END = 1, 2, 10
_ELEMENTS, _ELEMENT, _VALUE = 3, 1, 1
_MAX_ELEMENTS: Final = 512
"""How many are in one message: an attribute holds 65,535 bytes, an IPv6 element up to 96."""

_NESTS: Final = struct.Struct("=HHHHHH")
_VALUE_HEAD: Final = struct.Struct("=HHHH")

Request = tuple[int, int, bytes]
"""Type, flags and body."""


def attribute(kind: int, *parts: bytes) -> bytes:
    """Encodes an attribute, padded to 4 bytes."""
    data = b"".join(parts)
    return ATTRIBUTE.pack(4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """Encodes an attribute made of attributes."""
    return attribute(kind | NESTED, *parts)


def encode_message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Encodes a message."""
    return HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body


def family(number: int, resource: int = 0) -> bytes:
    """Encodes what every body begins with: the family, and what a batch is about."""
    return struct.pack("=BB", number, 0) + struct.pack("!H", resource)


_BATCH_BODY: Final = family(socket.AF_UNSPEC, NFTABLES >> 8)


def batch(requests: Sequence[Request], begin: int) -> bytes:
    """Encodes one transaction of requests, numbered from `begin` + 1; the last is acknowledged."""
    messages = [encode_message(BATCH_BEGIN, REQUEST, begin, _BATCH_BODY)]
    sequence, last = begin, begin + len(requests)
    for kind, flags, body in requests:
        sequence += 1
        flags |= REQUEST | ACK if sequence == last else REQUEST
        messages.append(encode_message(kind, flags, sequence, body))
    messages.append(encode_message(BATCH_END, REQUEST, last, _BATCH_BODY))
    return b"".join(messages)


class Encoder:
    """Encodes requests about the sets of one table."""

    def __init__(self, table: str) -> None:
        self.table: Final = family(FAMILY_INET) + attribute(1, table.encode("ascii") + b"\0")
        self._heads: dict[str, bytes] = {}
        self._key_heads: dict[int, bytes] = {}  # by the sizes of key and data
        self._data_heads: dict[int, bytes] = {}

    def head(self, set_name: str) -> bytes:
        """Encodes what every request about a set begins with."""
        head = self._heads.get(set_name)
        if head is None:
            name = attribute(2, set_name.encode("ascii") + b"\0")
            head = self._heads[set_name] = self.table + name
        return head

    def steps(self, steps: Sequence[Step]) -> list[Request]:
        """Encodes steps, as few messages as can be."""
        requests: list[Request] = []
        run: dict[str, list[bytes]] = {}
        is_adding = True
        for is_added, set_name, key, data in steps:
            if is_added is not is_adding:
                self._end_run(requests, run, is_adding)
                run, is_adding = {}, is_added
            items = run.get(set_name)
            if items is None:
                items = run[set_name] = []
            items.append(self.element(set_name, key, data))
        self._end_run(requests, run, is_adding)
        return requests

    def bodies(self, set_name: str, items: Sequence[bytes]) -> list[bytes]:
        """Encodes what requests say about encoded elements of a set; nearly always it is one."""
        head, bodies = self.head(set_name), []
        for start in range(0, len(items), _MAX_ELEMENTS):
            content = b"".join(items[start : start + _MAX_ELEMENTS])
            bodies.append(head + ATTRIBUTE.pack(len(content) + 4, _ELEMENTS | NESTED) + content)
        return bodies

    def element(self, set_name: str, key: bytes, data: bytes = b"") -> bytes:
        """Encodes element { key { value } data { value } }; an interval has key and key end."""
        if set_name in INTERVALS:
            half = len(key) // 2
            first = nested(KEY, attribute(_VALUE, key[:half]))
            return nested(_ELEMENT, first, nested(KEY_END, attribute(_VALUE, key[half:])))
        size, data_size = len(key), len(data)
        sizes = size << 16 | data_size
        head = self._key_heads.get(sizes)
        if head is None:
            whole = 4 + size + 8 + (data_size + 8 if data else 0)
            head = self._key_heads[sizes] = _NESTS.pack(
                *(whole, _ELEMENT | NESTED, size + 8, KEY | NESTED, size + 4, _VALUE)
            )
        if not data:
            return head + key
        data_head = self._data_heads.get(data_size)
        if data_head is None:
            data_head = self._data_heads[data_size] = _VALUE_HEAD.pack(
                *(data_size + 8, DATA | NESTED, data_size + 4, _VALUE)
            )
        return head + key + data_head + data

    def _end_run(
        self, requests: list[Request], run: dict[str, list[bytes]], is_adding: bool
    ) -> None:
        kind, flags = (NEW_ELEMENT, CREATE) if is_adding else (DELETE_ELEMENT, 0)
        for set_name, items in run.items():
            for body in self.bodies(set_name, items):
                requests.append((kind, flags, body))
