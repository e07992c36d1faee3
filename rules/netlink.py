"""Netlink by hand: map elements in one atomic batch on a persistent socket, and what others change.

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
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from rules.elements import INTERVALS, Element, Operation

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_SIZE = 32 << 20
_LISTENER_BUFFER_SIZE = 1 << 20
_MAX_DATAGRAM = 1 << 16
_MAX_ANSWERS = 1024

_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE, OVERRUN = 2, 3, 4
_NESTED = 0x8000

_NFTABLES = 10 << 8
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_GET_TABLE, _NEW_ELEMENT, _GET_ELEMENT, _DELETE_ELEMENT = 1, 12, 13, 14
_GET_OBJECT, _OBJECT_COUNTER = 19, 1
_FAMILY_INET = 1

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

    def __init__(self, table: str = "sipnat") -> None:
        self._table = attribute(1, table.encode("ascii") + b"\0")
        self._heads: dict[str, bytes] = {}
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_SIZE)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_SIZE)
        self._sequence = 0
        self._is_interrupted = False

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def has_table(self) -> bool:
        """Tells whether our table stands; raises KernelRefused without privileges."""
        body = _family(_FAMILY_INET) + self._table
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
        requests = [(_NFTABLES | _GET_ELEMENT, self._element_body(element)) for element in elements]
        slices = range(0, len(requests), _MAX_ANSWERS)
        answers = (self.ask(requests[start : start + _MAX_ANSWERS]) for start in slices)
        return [number == 0 for number in itertools.chain.from_iterable(answers)]

    def elements(self, set_name: str) -> Iterator[Element]:
        """Dumps a set and iterates over its elements; none where there is no such set."""
        for items in self._dump_set(set_name):
            yield from _parse_elements(set_name, items)

    def count(self, set_name: str) -> int:
        """Dumps a set and counts its elements; none where there is no such set."""
        return sum(map(_count_attributes, self._dump_set(set_name)))

    def all_elements(self, set_names: Iterable[str]) -> Iterator[Element]:
        """Dumps sets one after the other and iterates over their elements."""
        return itertools.chain.from_iterable(map(self.elements, set_names))

    def counters(self) -> dict[str, int]:
        """Returns the packets that each named counter of the table has counted."""
        kind = attribute(3, struct.pack("!I", _OBJECT_COUNTER))
        body = _family(_FAMILY_INET) + self._table + kind
        return dict(map(_parse_counter, self.dump(_NFTABLES | _GET_OBJECT, body)))

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

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """Yields the bodies of all answers to a dump request; raises KernelRefused.

        What is dumped may change meanwhile: then all comes once more, this time read at once. No
        other request may be sent before the last answer is taken.
        """
        self._request_dump(kind, body)
        yield from self._receive_dump()
        while self._is_interrupted:
            self._request_dump(kind, body)
            yield from list(self._receive_dump())

    def _dump_set(self, set_name: str) -> Iterator[bytes]:
        """Yields the elements of a set, many at a time."""
        try:
            for message in self.dump(_NFTABLES | _GET_ELEMENT, self._head(set_name)):
                for kind, items in parse_attributes(message, 4):
                    if kind == 3 and items:
                        yield items
        except KernelRefused as refusal:
            if refusal.number != errno.ENOENT:
                raise

    def _request_dump(self, kind: int, body: bytes) -> None:
        self._sequence += 1
        self._is_interrupted = False
        self._send(_message(kind, _REQUEST | _DUMP, self._sequence, body))

    def _receive_dump(self) -> Iterator[bytes]:
        is_done = False
        try:
            while not is_done:
                for kind, flags, message in self._receive():
                    sequence, number = _SEQUENCE_AND_ERRNO.unpack_from(message)
                    if sequence != self._sequence:
                        continue
                    self._is_interrupted |= bool(flags & _DUMP_INTERRUPTED)
                    if kind in (_DONE, _ERROR):
                        is_done = True
                    if kind == _ERROR:
                        raise KernelRefused(-number, "dump")
                    if kind != _DONE:
                        yield message[_HEADER.size :]
        finally:
            while not is_done:  # the kernel begins no other dump before
                is_done = any(kind in (_DONE, _ERROR) for kind, *_ in self._receive())

    def _batch(self, operations: Sequence[Operation]) -> dict[int, int]:
        """Sends one transaction; returns {index: errno} of what was refused, -1 for the whole."""
        begin = self._sequence + 1
        last = self._sequence = begin + len(operations)
        messages = [_message(_BATCH_BEGIN, _REQUEST, begin, _BATCH_BODY)]
        for sequence, (is_added, element) in enumerate(operations, begin + 1):
            kind, flags = (_NEW_ELEMENT, _CREATE) if is_added else (_DELETE_ELEMENT, 0)
            flags |= _REQUEST | (_ACK if sequence == last else 0)
            body = self._element_body(element)
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

    def _head(self, set_name: str) -> bytes:
        """Encodes what every request about a set begins with."""
        head = self._heads.get(set_name)
        if head is None:
            name = attribute(2, set_name.encode("ascii") + b"\0")
            head = self._heads[set_name] = _family(_FAMILY_INET) + self._table + name
        return head

    def _element_body(self, element: Element) -> bytes:
        set_name, key, data = element
        if set_name in INTERVALS:
            half = len(key) // 2
            first, last = (
                nested(kind, attribute(1, part))
                for kind, part in ((_KEY, key[:half]), (_KEY_END, key[half:]))
            )
            return self._head(set_name) + nested(3, nested(1, first, last))
        # elements { element { key { value } data { value } } }
        size = len(key) + 8 + (len(data) + 8 if data else 0)
        body = self._head(set_name) + _NESTS.pack(
            *(size + 8, 3 | _NESTED, size + 4, 1 | _NESTED),
            *(len(key) + 8, 1 | _NESTED, len(key) + 4, 1),
        )
        if not data:
            return body + key
        return body + key + _VALUE.pack(len(data) + 8, 2 | _NESTED, len(data) + 4, 1) + data

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
        yield from _split(datagram)


class Listener:
    """Hears multicast groups, in the network namespace of the thread that makes it.

    Raises OSError where the kernel does not allow it.
    """

    def __init__(self, protocol: int, *groups: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _LISTENER_BUFFER_SIZE)
        try:
            self._socket.bind((0, sum(1 << group - 1 for group in groups)))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """Returns the descriptor that is readable when something was heard."""
        return self._socket.fileno()

    def ask(self, kind: int, body: bytes) -> None:
        """Has the kernel tell all that there is of a kind, among what it tells anyway."""
        self._socket.send(_message(kind, _REQUEST | _DUMP, 0, body))

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """Yields (type, message) of what was heard, without waiting; OVERRUN where some is lost."""
        while True:
            try:
                datagram = self._socket.recv(_MAX_DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield OVERRUN, b""
                continue
            for kind, _flags, message in _split(datagram):
                yield kind, message


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


def _split(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yields (type, flags, message with its header) of each message."""
    offset = 0
    while offset < len(datagram):
        length, kind, flags, _sequence, _port = _HEADER.unpack_from(datagram, offset)
        yield kind, flags, datagram[offset : offset + length]
        offset += length + 3 & ~3


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _family(family: int, resource: int = 0) -> bytes:
    return struct.pack("=BB", family, 0) + struct.pack("!H", resource)


_BATCH_BODY = _family(socket.AF_UNSPEC, _NFTABLES >> 8)


_KEY, _KEY_END = 1, 10
_KEY_AT = 12  # after the headers of the element, its key, and the key's value
_NESTS = struct.Struct("=HHHHHHHH")
_VALUE = struct.Struct("=HHHH")


def _parse_elements(set_name: str, items: bytes) -> Iterator[Element]:
    """Yields the elements of one answer.

    In most sets all have one layout, and only the first is parsed: for the others it is enough that
    every byte outside key and data is the same.
    """
    size, _ = _ATTRIBUTE.unpack_from(items)
    fields = dict(parse_attributes(items[:size], 4))
    key, data = len(fields[1]) - 4, max(0, len(fields.get(2, b"")) - 4)
    if not _has_one_layout(items, size, key, data):
        for _kind, item in parse_attributes(items):
            fields = {kind: value[4:] for kind, value in parse_attributes(item)}
            last = fields[_KEY_END] if set_name in INTERVALS else b""
            yield Element(set_name, fields[_KEY] + last, fields.get(2, b""))
        return
    layout = f"{_KEY_AT}x{key}s" + (f"8x{data}s" if data else "")
    for found in struct.iter_unpack(layout, items):
        yield Element(set_name, *found)


def _count_attributes(items: bytes) -> int:
    """Counts attributes; where all have one header, by their size."""
    size: int = _ATTRIBUTE.unpack_from(items)[0]
    count, rest = divmod(len(items), size)
    if not rest and all(items[at::size] == items[at : at + 1] * count for at in range(4)):
        return count
    return sum(1 for _ in parse_attributes(items))


def _has_one_layout(items: bytes, size: int, key: int, data: int) -> bool:
    """Tells whether all items are an element's header, key and data, each of the same size."""
    if size != _KEY_AT + key + (8 + data if data else 0) or len(items) % size:
        return False
    count = len(items) // size
    frame = (*range(_KEY_AT), *range(_KEY_AT + key, size - data))
    return all(items[at::size] == items[at : at + 1] * count for at in frame)


def _parse_counter(message: bytes) -> tuple[str, int]:
    fields = dict(parse_attributes(message, 4))
    packets = dict(parse_attributes(fields[4]))[2]
    return fields[2].rstrip(b"\0").decode(), int.from_bytes(packets, "big")
