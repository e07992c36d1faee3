"""How the log is written: lines of text, lines of JSON, or entries of the journal with fields.

A record says more than its sentence by `extra`, with the names in `FIELDS`. What strangers wrote
cannot begin a line or move a cursor, and nothing above DEBUG names a user: what stands before the
"@" of a SIP URI, or in a tel URI, is struck out wherever it comes from.

The journal is written to by its native protocol (systemd, "Native Journal Protocol"), a datagram an
entry. A journal that cannot take one is not waited for: what it cannot take at all goes to standard
error, what it cannot take now is counted and said later.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import Literal

from alg.observe.printable import printable

FIELDS = (
    *("call_id", "reason", "kind", "transport", "internal", "external"),
    *("source", "destination"),
)
"""What a record may carry: the names in JSON, and in upper case behind SIPNAT_ in the journal."""

JOURNAL = "/run/systemd/journal/socket"
MAX_FIELD = 255
MAX_MESSAGE = 50_000
"""Characters of an entry's message, so that it fits into a datagram."""

LogFormat = Literal["auto", "text", "json", "journal"]

# Bounded, or a text full of "sip:" takes a time that grows with its square.
_USER = re.compile(r"\b(sips?:)[^@\s<>\"]{0,512}@|\b(tel:)[^\s;<>\"]+", re.IGNORECASE)
_PRIORITIES = (
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)


def set_up_logging(level: str, form: LogFormat) -> None:
    """Has the log written from the level on ("info"); again with others, and these hold."""
    if form == "journal" or (form == "auto" and _is_journaled()):
        handler: logging.Handler = JournalHandler()
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class TextLines(logging.Formatter):
    """A line a record, behind the name of the program; and an error's trace below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders a record."""
        return "\n".join((f"sipnat: {_sentence(record)}", *_trace(record)))


class JsonLines(logging.Formatter):
    """An object of ASCII a record: time, level, logger, message, fields, and an error's trace."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders a record."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        trace = "\n".join(_trace(record))
        return json.dumps(
            {
                "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": _sentence(record),
                **dict(_fields(record)),
                **({"trace": trace} if trace else {}),
            }
        )


class JournalHandler(logging.Handler):
    """Writes to the journal, and never waits for it."""

    def __init__(self, path: str = JOURNAL) -> None:
        super().__init__()
        self._path = path
        self._lost = 0
        self._text = TextLines()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Sends an entry."""
        lost = f" ({self._lost} entries before it are lost)" if self._lost else ""
        try:
            self._socket.sendto(encode_entry(_entry(record, lost)), self._path)
        except BlockingIOError:
            self._lost += 1
        except OSError:
            print(self._text.format(record), file=sys.stderr, flush=True)
        else:
            self._lost = 0

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
        super().close()


def encode_entry(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encodes an entry of the journal: "NAME=value" lines, or with a length what has lines."""
    return b"".join(_encode_field(name.encode(), value) for name, value in fields)


def _encode_field(name: bytes, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return name + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name + b"=" + data + b"\n"


def _entry(record: logging.LogRecord, note: str) -> Iterator[tuple[str, str]]:
    """Yields the fields of an entry (systemd.journal-fields(7))."""
    yield "MESSAGE", "\n".join((_sentence(record) + note, *_trace(record)))[:MAX_MESSAGE]
    yield "PRIORITY", str(next(p for level, p in _PRIORITIES if record.levelno >= level))
    yield "SYSLOG_IDENTIFIER", "sipnat"
    yield "CODE_FILE", record.pathname
    yield "CODE_LINE", str(record.lineno)
    yield "CODE_FUNC", record.funcName or ""
    yield "LOGGER", record.name
    for name, value in _fields(record):
        yield f"SIPNAT_{name.upper()}", value


def _sentence(record: logging.LogRecord) -> str:
    return printable(_shown(record, record.getMessage()))


def _trace(record: logging.LogRecord) -> list[str]:
    """Returns the lines of an error's trace, none where the record has no error."""
    if not record.exc_info:
        return []
    trace = logging.Formatter().formatException(record.exc_info)
    return [printable(line) for line in _shown(record, trace).split("\n")]


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    for name in FIELDS:
        value = getattr(record, name, None)
        if value is not None:
            yield name, _shown(record, str(value))[:MAX_FIELD]


def _shown(record: logging.LogRecord, text: str) -> str:
    if record.levelno <= logging.DEBUG:
        return text
    return _USER.sub(lambda found: f"{found[1]}*@" if found[1] else f"{found[2]}*", text)


def _is_journaled() -> bool:
    """Whether standard error leads to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        stream = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"
