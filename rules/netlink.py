"""Netlink by hand: map elements in one atomic batch on a persistent socket, and what others change.

The kernel works a request off inside send(), so when send() returns every answer is queued: reading
needs no waiting, and a commit costs two system calls. Elements of one set share a message
(`rules.encoding`); only what is refused is sent again with one message each, so that the error says
which element it was.

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

from rules.elements import INTERVALS, Element, Operation, Step, of_family
from rules.encoding import (
    ACK,
    ATTRIBUTE,
    CREATE,
    DELETE_ELEMENT,
    DESTROY_ELEMENT,
    ECHO,
    GET_ELEMENT,
    HEADER,
    KEY,
    KEY_END,
    NEW_ELEMENT,
    NFTABLES,
    REQUEST,
    Encoder,
    Request,
    attribute,
    batch,
    encode_message,
)

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_SIZE = 32 << 20
_LISTENER_BUFFER_SIZE = 1 << 20
_MAX_DATAGRAM = 1 << 16
_MAX_ANSWERS = 1024

_DUMP = 0x300
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE, OVERRUN = 2, 3, 4

_GET_TABLE = NFTABLES | 1
_GET_OBJECT, _OBJECT_COUNTER = NFTABLES | 19, 1
_STRAYS = "strays"

_SEQUENCE_AND_ERRNO = struct.Struct("=8xI4xi")


class KernelRefused(Exception):
    """The kernel refused a request; `number` is its errno."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{what}: {errno.errorcode.get(number, number)} ({os.strerror(number)})")
        self.number = number


class Netlink:
    """A netfilter netlink socket in the network namespace of the thread that makes it."""

    def __init__(self, table: str = "sipnat") -> None:
        self._encoder = Encoder(table)
        self._has_destroy = True
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
        number = self.ask([(_GET_TABLE, self._encoder.table)])[0]
        if number not in (0, errno.ENOENT):
            raise KernelRefused(number, "nftables")
        return not number

    def commit(self, steps: Sequence[Step], asked: Sequence[bytes] = ()) -> set[bytes]:
        """Adds and deletes elements, all or none; raises KernelRefused.

        Returns which of the packed endpoints asked for were in `strays`. They may be there no more.
        """
        requests = self._encoder.steps(steps)
        if asked and self._has_destroy:
            requests += self._forgetting(asked)
        found: set[bytes] = set()
        refusals = self._transact(requests, found) if requests else {}
        if not refusals:
            return found if self._has_destroy else self._noted(asked)
        if asked and set(refusals.values()) == {errno.EINVAL}:  # before 6.3
            self._has_destroy = False
            return self.commit(steps, asked)
        self.apply([Operation(each[0], Element(*each[1:])) for each in steps])
        return self._noted(asked)

    def apply(self, operations: Sequence[Operation]) -> None:
        """Adds and deletes elements, all or none, one message each; raises KernelRefused."""
        pending = list(operations)
        while pending:
            refusals = self._transact([self._request(each) for each in pending], set())
            if not refusals:
                return
            for index, number in refusals.items():
                if number != errno.ENOENT or index < 0 or pending[index].is_added:
                    what = str(pending[index].element) if index >= 0 else "the batch"
                    raise KernelRefused(number, what)
            pending = [step for index, step in enumerate(pending) if index not in refusals]

    def have(self, elements: Sequence[Element]) -> list[bool]:
        """Tells for each element whether it stands; costs no more with many elements present."""
        requests = [(GET_ELEMENT, self._element_body(element)) for element in elements]
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
        return dict(map(_parse_counter, self.dump(_GET_OBJECT, self._encoder.table + kind)))

    def ask(self, requests: Sequence[tuple[int, bytes]]) -> list[int]:
        """Sends (type, body) requests at once and returns each one's errno, 0 for success."""
        first = self._sequence + 1
        self._sequence += len(requests)
        self._send(
            b"".join(
                encode_message(kind, REQUEST | ACK, first + index, body)
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
            for message in self.dump(GET_ELEMENT, self._encoder.head(set_name)):
                for kind, items in parse_attributes(message, 4):
                    if kind == 3 and items:
                        yield items
        except KernelRefused as refusal:
            if refusal.number != errno.ENOENT:
                raise

    def _request_dump(self, kind: int, body: bytes) -> None:
        self._sequence += 1
        self._is_interrupted = False
        self._send(encode_message(kind, REQUEST | _DUMP, self._sequence, body))

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
                        yield message[HEADER.size :]
        finally:
            while not is_done:  # the kernel begins no other dump before
                is_done = any(kind in (_DONE, _ERROR) for kind, *_ in self._receive())

    def _transact(self, requests: Sequence[Request], destroyed: set[bytes]) -> dict[int, int]:
        """Sends one transaction; returns {index: errno} of what was refused, -1 for the whole.

        Adds the keys of what it has destroyed and tells of.
        """
        begin = self._sequence + 1
        last = self._sequence = begin + len(requests)
        self._send(batch(requests, begin))
        refusals: dict[int, int] = {}
        while True:
            for kind, _flags, answer in self._receive():
                sequence, number = _SEQUENCE_AND_ERRNO.unpack_from(answer)
                if kind in (DELETE_ELEMENT, DESTROY_ELEMENT):  # before the answer to its batch
                    destroyed.update(_parse_keys(answer))
                if kind != _ERROR or sequence < begin:
                    continue
                if number:
                    refusals[sequence - begin - 1] = -number
                if sequence in (begin, last):
                    return refusals

    def _forgetting(self, endpoints: Sequence[bytes]) -> list[Request]:
        """Encodes that these strays are deleted if they are there, and that we want to hear of it.

        That costs a fraction of asking, which no transaction can.
        """
        items: dict[str, list[bytes]] = {}
        for endpoint in endpoints:
            item = self._encoder.element("", endpoint)
            items.setdefault(of_family(_STRAYS, endpoint), []).append(item)
        return [
            (DESTROY_ELEMENT, ECHO, body)
            for name, each in items.items()
            for body in self._encoder.bodies(name, each)
        ]

    def _noted(self, endpoints: Sequence[bytes]) -> set[bytes]:
        asked = [Element(of_family(_STRAYS, each), each) for each in endpoints]
        return {
            each for each, is_there in zip(endpoints, self.have(asked), strict=True) if is_there
        }

    def _request(self, step: Operation) -> Request:
        kind, flags = (NEW_ELEMENT, CREATE) if step.is_added else (DELETE_ELEMENT, 0)
        return kind, flags, self._element_body(step.element)

    def _element_body(self, element: Element) -> bytes:
        return self._encoder.bodies(element.set_name, [self._encoder.element(*element)])[0]

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
        self._socket.send(encode_message(kind, REQUEST | _DUMP, 0, body))

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


def parse_attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields (type, payload) of each attribute from `offset` on."""
    while offset < len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def _split(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yields (type, flags, message with its header) of each message."""
    offset = 0
    while offset < len(datagram):
        length, kind, flags, _sequence, _port = HEADER.unpack_from(datagram, offset)
        yield kind, flags, datagram[offset : offset + length]
        offset += length + 3 & ~3


_KEY_AT = 12  # after the headers of the element, its key, and the key's value


def _parse_elements(set_name: str, items: bytes) -> Iterator[Element]:
    """Yields the elements of one answer.

    In most sets all have one layout, and only the first is parsed: for the others it is enough that
    every byte outside key and data is the same.
    """
    size, _ = ATTRIBUTE.unpack_from(items)
    fields = dict(parse_attributes(items[:size], 4))
    key, data = len(fields[1]) - 4, max(0, len(fields.get(2, b"")) - 4)
    if not _has_one_layout(items, size, key, data):
        for _kind, item in parse_attributes(items):
            fields = {kind: value[4:] for kind, value in parse_attributes(item)}
            last = fields[KEY_END] if set_name in INTERVALS else b""
            yield Element(set_name, fields[KEY] + last, fields.get(2, b""))
        return
    layout = f"{_KEY_AT}x{key}s" + (f"8x{data}s" if data else "")
    for found in struct.iter_unpack(layout, items):
        yield Element(set_name, *found)


def _parse_keys(notice: bytes) -> Iterator[bytes]:
    """Yields the keys of the elements that a notice is about."""
    for kind, items in parse_attributes(notice, HEADER.size + 4):
        if kind == 3:
            yield from (each.key for each in _parse_elements(_STRAYS, items))


def _count_attributes(items: bytes) -> int:
    """Counts attributes; where all have one header, by their size."""
    size: int = ATTRIBUTE.unpack_from(items)[0]
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
