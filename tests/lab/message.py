"""SIP messages as the lab's agents write and read them.

Kept apart from the gateway's parser on purpose, and much simpler: it reads what the lab's own
agents write (one value a line, long header names), and keeps the received bytes beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from nat_table.endpoint import Endpoint, is_ipv6

SIP_PORT = 5060
URI = re.compile(r"(sips?):(?:([^@;>]*)@)?(\[[^\]]*\]|[^:;>?]+)(?::(\d+))?")
SENT_BY = re.compile(r"(\[[^\]]*\]|[^:;]+)(?::(\d+))?")
START_LINE = re.compile(rb"(?:SIP/2\.0 \d{3} |[A-Z]+ sips?:)")
REASONS = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    491: "Request Pending",
}


@dataclass
class Message:
    """One SIP message; `raw` and `source` are what arrived, where it was received."""

    start_line: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    raw: bytes = b""
    source: Endpoint = field(default=Endpoint("", 0))

    @property
    def is_request(self) -> bool:
        return not self.start_line.startswith("SIP/2.0 ")

    @property
    def method(self) -> str:
        """The request's method; of a response, the method it answers."""
        return self.start_line.split()[0] if self.is_request else self["CSeq"].split()[1]

    @property
    def status(self) -> int:
        """The response's status code; 0 of a request."""
        return 0 if self.is_request else int(self.start_line.split()[1])

    @property
    def uri(self) -> str:
        """The Request-URI."""
        return self.start_line.split()[1]

    @property
    def call_id(self) -> str:
        return self["Call-ID"]

    @property
    def sequence(self) -> int:
        """The number in CSeq."""
        return int(self["CSeq"].split()[0])

    def __getitem__(self, name: str) -> str:
        """Returns the header's first value, or "" where there is none."""
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        """Returns the header's values in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __str__(self) -> str:
        return f"{self.start_line} ({self['CSeq']})"


def encode(message: Message) -> bytes:
    """Encodes a message, Content-Length computed."""
    lines = [message.start_line]
    lines += [f"{name}: {value}" for name, value in message.headers]
    lines += [f"Content-Length: {len(message.body)}", "", ""]
    return "\r\n".join(lines).encode() + message.body


def parse(raw: bytes, source: Endpoint) -> Message | None:
    """Parses a datagram; None if it does not begin as SIP does."""
    if not START_LINE.match(raw):
        return None
    head, _, body = raw.partition(b"\r\n\r\n")
    start_line, *lines = head.decode("utf-8", "replace").split("\r\n")
    headers = [
        (name.strip(), value.strip()) for name, _, value in (s.partition(":") for s in lines)
    ]
    return Message(start_line, headers, body, raw, source)


def bare_uri(value: str) -> str:
    """Returns the URI of a name-addr: "<sip:a@b>;tag=1" gives "sip:a@b"."""
    bracketed = re.search(r"<([^>]*)>", value)
    return bracketed[1] if bracketed else value.split(";")[0].strip()


def uri_endpoint(uri: str) -> Endpoint:
    """Returns where a request to a numeric URI is sent (RFC 3263 §4: no port means 5060)."""
    matched = URI.search(uri)
    if matched is None:
        raise ValueError(f"{uri!r} is not a SIP URI")
    return Endpoint(matched[3].strip("[]"), int(matched[4] or SIP_PORT))


def uri_host(address: str) -> str:
    """Renders an address as a URI has it: IPv6 in brackets (RFC 3261 §25.1, IPv6reference)."""
    return f"[{address}]" if is_ipv6(address) else address


def uri_user(uri: str) -> str:
    """Returns the user part of a URI, or ""."""
    matched = URI.search(uri)
    return (matched[2] or "") if matched else ""


def parameter(value: str, name: str) -> str | None:
    """Returns a parameter behind a header's value, "" if it has no value, None if it is absent."""
    matched = re.search(rf";\s*{name}(?:=([^;,\s]*))?(?=[;,\s]|$)", value.rpartition(">")[2])
    return (matched[1] or "") if matched else None


def via_sent_by(via: str) -> Endpoint:
    """Returns the host and port a Via names (RFC 3261 §18.1.1)."""
    matched = SENT_BY.match(via.split()[1])
    if matched is None:
        raise ValueError(f"{via!r} is not a Via")
    return Endpoint(matched[1].strip("[]"), int(matched[2] or SIP_PORT))


def stamp_via(message: Message) -> None:
    """Writes `received` and `rport` into the top Via of a request (RFC 3581 §4)."""
    for index, (name, via) in enumerate(message.headers):
        if name.lower() != "via":
            continue
        wants_rport = parameter(via, "rport") == ""
        if wants_rport:
            via = re.sub(r";\s*rport(?=[;\s]|$)", f";rport={message.source.port}", via)
        if wants_rport or via_sent_by(via).address != message.source.address:
            via += f";received={message.source.address}"
        message.headers[index] = (name, via)
        return


def response_destination(via: str) -> Endpoint:
    """Returns where a response goes by its top Via (RFC 3261 §18.2.2, RFC 3581 §4)."""
    sent_by = via_sent_by(via)
    address = parameter(via, "received") or sent_by.address
    return Endpoint(address, int(parameter(via, "rport") or sent_by.port))
