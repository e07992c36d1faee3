"""Netfilter's netlink by hand: map elements in one atomic batch on a persistent socket.

The kernel works a request off inside send(), so when send() returns every answer is queued: reading
needs no waiting, and a commit costs two system calls. Elements have one message each, so that an
error says which element was refused.

 - Adding an element that stands with the same data changes nothing; with other data it is refused
   (EEXIST). A replacement is a delete and an add in one batch.
 - Deleting an element that is gone fails the whole batch (ENOENT): the batch is sent again without
   such deletes. (NFT_MSG_DESTROYSETELEM would not fail, but needs 6.3; this path is rarely taken.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from rules.elements import Element, Operation

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_SIZE = 32 << 20
_MAX_DATAGRAM = 1 << 16

_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_NESTED = 0x8000

_NFTABLES = 10 << 8
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_GET_TABLE, _NEW_ELEMENT, _GET_ELEMENT, _DELETE_ELEMENT = 1, 12, 13, 14
_FAMILY_INET = 1
_TABLE = b"sipnat\0"

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_SEQUENCE_AND_ERRNO = struct.Struct("=8xI4xi")


class KernelRefused(Exception):
    """The kernel refused a request; `number` is its errno."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{what}: {errno.errorcode.get(number, number)} ({os.strerror(number)})")
        self.number = number


class Netlink:
    """A netfilter netlink socket in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_SIZE)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_SIZE)
        self._sequence = 0

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def has_table(self) -> bool:
        """Tells whether table `inet sipnat` stands; raises KernelRefused without privileges."""
        body = _family(_FAMILY_INET) + attribute(1, _TABLE)
        number = self.ask([(_NFTABLES | _GET_TABLE, body)])[0]
        if number not in (0, errno.ENOENT):
            raise KernelRefused(number, "nftables")
        return not number

    def apply(self, operations: Sequence[Operation]) -> None:
        """Adds and deletes elements, all or none; raises KernelRefused."""
        pending = list(operations)
        while pending:
            refusals = self._batch(pending)
            if not refusals:
                return
            for index, number in refusals.items():
                if number != errno.ENOENT or index < 0 or pending[index].is_added:
                    what = str(pending[index].element) if index >= 0 else "the batch"
                    raise KernelRefused(number, what)
            pending = [step for index, step in enumerate(pending) if index not in refusals]

    def have(self, elements: Sequence[Element]) -> list[bool]:
        """Tells for each element whether it stands; costs no more with many elements present."""
        requests = [(_NFTABLES | _GET_ELEMENT, _element_body(element)) for element in elements]
        return [number == 0 for number in self.ask(requests)]

    def elements(self, set_name: str) -> list[Element]:
        """Returns all elements of a set; empty where there is no such set."""
        body = _family(_FAMILY_INET) + _set_attributes(set_name)
        try:
            messages = self.dump(_NFTABLES | _GET_ELEMENT, body)
        except KernelRefused as refusal:
            if refusal.number == errno.ENOENT:
                return []
            raise
        return [element for message in messages for element in _parse_elements(set_name, message)]

    def ask(self, requests: Sequence[tuple[int, bytes]]) -> list[int]:
        """Sends (type, body) requests at once and returns each one's errno, 0 for success."""
        first = self._sequence + 1
        self._sequence += len(requests)
        self._send(
            b"".join(
                _message(kind, _REQUEST | _ACK, first + index, body)
                for index, (kind, body) in enumerate(requests)
            )
        )
        outcomes: dict[int, int] = {}
        while len(outcomes) < len(requests):
            for kind, _flags, message in self._receive():
                if kind == _ERROR:
                    sequence, number = _SEQUENCE_AND_ERRNO.unpack_from(message)
                    if sequence >= first:
                        outcomes[sequence - first] = -number
        return [outcomes[index] for index in range(len(requests))]

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Returns the bodies of all answers to a dump request; raises KernelRefused."""
        while True:
            self._sequence += 1
            self._send(_message(kind, _REQUEST | _DUMP, self._sequence, body))
            is_whole, answers = self._receive_dump()
            if is_whole:
                return answers

    def _receive_dump(self) -> tuple[bool, list[bytes]]:
        answers: list[bytes] = []
        is_whole = True
        while True:
            for kind, flags, message in self._receive():
                sequence, number = _SEQUENCE_AND_ERRNO.unpack_from(message)
                if sequence != self._sequence:
                    continue
                is_whole = is_whole and not flags & _DUMP_INTERRUPTED
                if kind == _DONE:
                    return is_whole, answers
                if kind == _ERROR:
                    raise KernelRefused(-number, "dump")
                answers.append(message[_HEADER.size :])

    def _batch(self, operations: Sequence[Operation]) -> dict[int, int]:
        """Sends one transaction; returns {index: errno} of what was refused, -1 for the whole."""
        begin = self._sequence + 1
        last = self._sequence = begin + len(operations)
        messages = [_message(_BATCH_BEGIN, _REQUEST, begin, _BATCH_BODY)]
        for sequence, (is_added, element) in enumerate(operations, begin + 1):
            kind, flags = (_NEW_ELEMENT, _CREATE) if is_added else (_DELETE_ELEMENT, 0)
            flags |= _REQUEST | (_ACK if sequence == last else 0)
            body = _element_body(element)
            messages.append(_message(_NFTABLES | kind, flags, sequence, body))
        messages.append(_message(_BATCH_END, _REQUEST, last, _BATCH_BODY))
        self._send(b"".join(messages))
        refusals: dict[int, int] = {}
        while True:
            for kind, _flags, message in self._receive():
                sequence, number = _SEQUENCE_AND_ERRNO.unpack_from(message)
                if kind != _ERROR or sequence < begin:
                    continue
                if number:
                    refusals[sequence - begin - 1] = -number
                if sequence in (begin, last):
                    return refusals

    def _send(self, messages: bytes) -> None:
        try:
            self._socket.send(messages)
        except OSError as error:
            raise KernelRefused(error.errno or errno.EIO, "netlink request") from None

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        try:
            datagram = self._socket.recv(_MAX_DATAGRAM, socket.MSG_DONTWAIT)
        except OSError as error:
            raise KernelRefused(error.errno or errno.EIO, "netlink answer") from None
        offset = 0
        while offset < len(datagram):
            length, kind, flags, _sequence, _port = _HEADER.unpack_from(datagram, offset)
            yield kind, flags, datagram[offset : offset + length]
            offset += length + 3 & ~3


def attribute(kind: int, *parts: bytes) -> bytes:
    """Encodes an attribute, padded to 4 bytes."""
    data = b"".join(parts)
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """Encodes an attribute made of attributes."""
    return attribute(kind | _NESTED, *parts)


def parse_attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields (type, payload) of each attribute from `offset` on."""
    while offset < len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _family(family: int, resource: int = 0) -> bytes:
    return struct.pack("=BB", family, 0) + struct.pack("!H", resource)


_BATCH_BODY = _family(socket.AF_UNSPEC, _NFTABLES >> 8)


def _set_attributes(set_name: str) -> bytes:
    return attribute(1, _TABLE) + attribute(2, set_name.encode() + b"\0")


_HEADS: dict[str, bytes] = {}


def _element_body(element: Element) -> bytes:
    set_name, key, data = element
    head = _HEADS.get(set_name)
    if head is None:
        head = _HEADS[set_name] = _family(_FAMILY_INET) + _set_attributes(set_name)
    # elements { element { key { value } data { value } } }
    size = len(key) + 8 + (len(data) + 8 if data else 0)
    body = head + _NESTS.pack(
        *(size + 8, 3 | _NESTED, size + 4, 1 | _NESTED),
        *(len(key) + 8, 1 | _NESTED, len(key) + 4, 1),
    )
    if not data:
        return body + key
    return body + key + _VALUE.pack(len(data) + 8, 2 | _NESTED, len(data) + 4, 1) + data


_NESTS = struct.Struct("=HHHHHHHH")
_VALUE = struct.Struct("=HHHH")


def _parse_elements(set_name: str, message: bytes) -> Iterator[Element]:
    for kind, items in parse_attributes(message, 4):
        if kind != 3:
            continue
        for _kind, item in parse_attributes(items):
            fields: dict[int, bytes] = dict(parse_attributes(item))
            yield Element(set_name, fields[1][4:], fields.get(2, b"")[4:])
