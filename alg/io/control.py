"""The control socket: one request line in, rows out, as JSON (see README.md beside this file).

The server lives in the event loop that handles packets, so nothing here may hold that loop up. An
answer is made in chunks of rows with the loop free in between; a request has a largest size, a
conversation an end, and the number of clients a limit. Who may connect is the socket file's mode.
The client is blocking: it serves commands that have nothing else to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import msgspec

VERSION = 1
MAX_REQUEST = 4096
ROWS_PER_CHUNK = 100

Request = Mapping[str, object]
Row = Mapping[str, object]
Handler = Callable[[Request], Iterable[Row]]

log = logging.getLogger(__name__)


class ControlError(Exception):
    """The control socket cannot be had or gave no answer; the text is one sentence.

    Where the gateway refuses, `code` may say why in a word.
    """

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code


class ControlInUse(ControlError):
    """Another sipnat answers at the control socket."""


class RequestRefused(Exception):
    """What a handler raises when it cannot do what it was asked; the text is one sentence.

    A `code` is for programs.
    """

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code


class ControlServer:
    """Answers requests at a unix socket, each by the handler of its `command`.

    A handler is called in the event loop with the whole request and gives back the rows. Both
    the call and each step of the iteration must be short, and other work happens between the
    steps: rows come from a list made at once, or from a generator that bears the table changing
    underneath (such as one over `list(table.bindings())`). It raises RequestRefused, at once or
    between rows, for the client's faults.
    """

    def __init__(
        self,
        path: str | Path,
        handlers: Mapping[str, Handler],
        *,
        max_clients: int = 8,
        client_timeout: float = 10.0,
    ) -> None:
        self._path = Path(path)
        self._handlers = handlers
        self._max_clients = max_clients
        self._client_timeout = client_timeout
        self._clients: set[asyncio.Task[None] | None] = set()
        self._server: asyncio.Server | None = None
        self._inode = 0

    async def start(self) -> None:
        """Makes the socket and serves; raises ControlInUse or, for all else, ControlError."""
        listener = _claim(self._path)
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=MAX_REQUEST, backlog=self._max_clients
        )

    async def stop(self) -> None:
        """Leaves every client where it is and removes the socket, unless it is another's by now."""
        if self._server is None:
            return
        # While the listener is open its inode cannot be another file's.
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._server.close()
        clients = [client for client in self._clients if client]
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        self._clients.add(client)
        try:
            async with asyncio.timeout(self._client_timeout):
                if len(self._clients) > self._max_clients:
                    writer.write(_error("there are too many clients already"))
                else:
                    await self._converse(reader, writer)
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            log.debug("a control client was dropped: it was too slow or went away")
        finally:
            writer.transport.abort()
            self._clients.discard(client)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
        except ValueError:
            writer.write(_error(f"the request is longer than {MAX_REQUEST} bytes"))
            return
        if not line:
            return
        for chunk in self._answer(line):
            writer.write(chunk)
            await writer.drain()
            # drain() returns at once while the buffer has room; packets get their turn here.
            await asyncio.sleep(0)

    def _answer(self, line: bytes) -> Iterator[bytes]:
        try:
            rows = iter(self._handle(line))
            while chunk := list(islice(rows, ROWS_PER_CHUNK)):
                yield b"".join([_encode_line({"row": row}) for row in chunk])
            yield _encode_line({"done": True})
        except RequestRefused as refusal:
            yield _error(str(refusal), refusal.code)
        except Exception:
            log.exception("a control request failed")
            yield _error("the request failed, and the gateway's log says why")

    def _handle(self, line: bytes) -> Iterable[Row]:
        try:
            request = msgspec.json.decode(line, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RequestRefused("the request is not a JSON object on one line") from None
        if request.get("version") != VERSION:
            raise RequestRefused(f"the request is not of version {VERSION} of the control protocol")
        command = request.get("command")
        if not isinstance(command, str) or command not in self._handlers:
            raise RequestRefused(f"the command is none of {', '.join(self._handlers)}")
        return self._handlers[command](request)


def ask(path: str | Path, request: Request, timeout: float = 5.0) -> Iterator[dict[str, object]]:
    """Sends one request and yields the rows of the answer as they come.

    Raises ControlError when nobody answers, nothing comes for `timeout` seconds, the server
    refuses, or the answer ends before it is complete.
    """
    decoder = msgspec.json.Decoder(_Answer)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            # A server that refuses may have closed already; its error line is still to be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(_encode_line({"version": VERSION, **request}))
            with connection.makefile("rb") as lines:
                for line in lines:
                    answer = decoder.decode(line)
                    if answer.error is not None:
                        raise ControlError(answer.error, answer.code)
                    if answer.done:
                        return
                    if answer.row is None:
                        raise msgspec.ValidationError
                    yield answer.row
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(f"no sipnat is running: nobody answers at {path}") from None
        except TimeoutError:
            raise ControlError(f"the gateway at {path} says nothing for {timeout:g} s") from None
        except ConnectionError:
            pass
        except OSError as error:
            raise ControlError(f"cannot reach the gateway at {path}: {_reason(error)}") from error
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ControlError(f"what answers at {path} is not sipnat") from None
    raise ControlError(f"the gateway at {path} ended its answer early")


class _Answer(msgspec.Struct):
    row: dict[str, object] | None = None
    done: bool = False
    error: str | None = None
    code: str = ""


def _claim(path: Path) -> socket.socket:
    """Returns a bound socket of mode 0660 that does not listen yet."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o755)
        _remove_stale(path)
        listener.bind(str(path))
        path.chmod(0o660)
    except OSError as error:
        listener.close()
        raise ControlError(f"cannot make the control socket {path}: {_reason(error)}") from error
    except ControlError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Removes a socket that nobody serves; raises ControlInUse when somebody does."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"cannot make the control socket {path}: there is another file")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise ControlInUse(f"another sipnat is running: it answers at {path}")


def _encode_line(message: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def _error(sentence: str, code: str = "") -> bytes:
    return _encode_line({"error": sentence, "code": code} if code else {"error": sentence})


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
