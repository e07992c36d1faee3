"""The control socket: one request line in, rows out, as JSON (see README.md beside this file).

The server lives in the event loop that handles packets, so nothing here may hold that loop up. An
answer is made in chunks of rows with the loop free between; a request has a largest size, a
conversation an end, and the number of clients a limit. A stream, whose rows come as they come, has
no end but its client's: it is over once the client has hung up or takes no rows for a while, and
streams have a limit of their own, so that other requests are answered beside them. Who may connect
is the socket file's mode. The client is blocking: it serves commands that have nothing else to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import stat
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from itertools import islice
from pathlib import Path

import msgspec

VERSION = 1
MAX_REQUEST = 4096
ROWS_PER_CHUNK = 100

Request = Mapping[str, object]
Row = Mapping[str, object]
Rows = Iterable[Row | None] | AsyncIterator[Row]
Handler = Callable[[Request], Rows | Awaitable[Rows]]

log = logging.getLogger(__name__)


class ControlError(Exception):
    """The control socket cannot be had or gave no answer; the text is one sentence.

    Where the gateway refuses, `code` may say why in a word.
    """

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code


class NotRunning(ControlError):
    """Nobody answers at the control socket."""


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
    underneath (such as one over `list(table.bindings())`); None is a step without a row. It raises
    RequestRefused, at once or between rows, for the client's faults. Where it has to wait before
    the first row, it is a coroutine function; where between rows, it gives back an asynchronous
    iterator: each of its rows is sent when it comes, for as long as the client listens, and a
    generator is closed then. It is asked for no row while the client is behind.
    """

    def __init__(
        self,
        path: str | Path,
        handlers: Mapping[str, Handler],
        *,
        max_clients: int = 8,
        max_streams: int = 8,
        client_timeout: float = 10.0,
    ) -> None:
        self._path = Path(path)
        self._handlers = handlers
        self._max_clients = max_clients
        self._max_streams = max_streams
        self._client_timeout = client_timeout
        self._clients: set[asyncio.Task[None] | None] = set()
        self._streams: set[asyncio.Task[None] | None] = set()
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
        clients = [client for client in self._clients | self._streams if client]
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        self._clients.add(client)
        try:
            async with asyncio.timeout(self._client_timeout) as limit:
                if len(self._clients) > self._max_clients:
                    writer.write(_error("there are too many clients already"))
                else:
                    await self._converse(reader, writer, limit)
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            log.debug("a control client was dropped: it was too slow or went away")
        finally:
            writer.transport.abort()
            self._clients.discard(client)
            self._streams.discard(client)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Timeout
    ) -> None:
        try:
            line = await reader.readline()
        except ValueError:
            writer.write(_error(f"the request is longer than {MAX_REQUEST} bytes"))
            return
        if not line:
            return
        try:
            rows = self._handle(line)
            if isinstance(rows, Awaitable):
                rows = await rows
            if isinstance(rows, AsyncIterator):
                await self._send_as_they_come(rows, writer, limit)
            else:
                await self._send(iter(rows), writer)
            writer.write(_encode_line({"done": True}))
        except RequestRefused as refusal:
            writer.write(_error(str(refusal), refusal.code))
        except (TimeoutError, ConnectionError):
            raise
        except Exception:
            log.exception("a control request failed")
            writer.write(_error("the request failed, and the gateway's log says why"))

    async def _send(self, rows: Iterator[Row | None], writer: asyncio.StreamWriter) -> None:
        while chunk := list(islice(rows, ROWS_PER_CHUNK)):
            writer.write(b"".join([_encode_line({"row": row}) for row in chunk if row]))
            await writer.drain()
            # drain() returns at once while the buffer has room; packets get their turn here.
            await asyncio.sleep(0)

    async def _send_as_they_come(
        self, rows: AsyncIterator[Row], writer: asyncio.StreamWriter, limit: asyncio.Timeout
    ) -> None:
        """Sends rows until there are no more; the conversation's limit is the client's hanging up.

        Raises RequestRefused where there are as many streams as there may be.
        """
        if len(self._streams) >= self._max_streams:
            raise RequestRefused("there are too many streams already")
        client = asyncio.current_task()
        self._clients.discard(client)
        self._streams.add(client)
        limit.reschedule(None)
        try:
            with _awaiting_hang_up(writer, limit):
                async for row in rows:
                    writer.write(_encode_line({"row": row}))
                    if writer.transport.is_closing() or writer.transport.get_write_buffer_size():
                        async with asyncio.timeout(self._client_timeout):
                            await writer.drain()
            limit.reschedule(asyncio.get_running_loop().time() + self._client_timeout)
        finally:
            if isinstance(rows, AsyncGenerator):
                await rows.aclose()

    def _handle(self, line: bytes) -> Rows | Awaitable[Rows]:
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


def ask(
    path: str | Path, request: Request, timeout: float | None = 5.0
) -> Iterator[dict[str, object]]:
    """Sends one request and yields the rows of the answer as they come.

    Raises ControlError when nobody answers, nothing comes for `timeout` seconds (None waits for
    ever), the server refuses, or the answer ends before it is complete.
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
            raise NotRunning(f"no sipnat is running: nobody answers at {path}") from None
        except PermissionError:
            raise ControlError(
                f"only root and the group of {path} may ask the gateway: try with sudo"
            ) from None
        except TimeoutError:
            raise ControlError(f"the gateway at {path} says nothing for {timeout:g} s") from None
        except ConnectionError:
            pass
        except OSError as error:
            raise ControlError(f"cannot reach the gateway at {path}: {_reason(error)}") from error
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ControlError(f"what answers at {path} is not sipnat") from None
    raise ControlError(f"the gateway at {path} ended its answer early")


@contextlib.contextmanager
def _awaiting_hang_up(writer: asyncio.StreamWriter, limit: asyncio.Timeout) -> Iterator[None]:
    """Has the limit reached when the client closes, which nobody would notice who only writes.

    That it has no more to say (`nc -N`) is not the end. A hang-up is all that epoll(7) tells of a
    socket that it is asked to watch for nothing, and an epoll can be watched itself.
    """
    loop = asyncio.get_running_loop()
    with select.epoll() as poll:

        def end() -> None:
            loop.remove_reader(poll)
            limit.reschedule(loop.time())

        poll.register(writer.get_extra_info("socket").fileno(), 0)
        loop.add_reader(poll, end)
        try:
            yield
        finally:
            loop.remove_reader(poll)


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
        former = os.umask(0o117)  # by its name, another file might be meant by now
        try:
            listener.bind(str(path))
        finally:
            os.umask(former)
        home = path.parent.stat()  # whoever has it can take the socket away after a crash
        with contextlib.suppress(PermissionError):
            os.chown(path, home.st_uid, home.st_gid, follow_symlinks=False)
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
