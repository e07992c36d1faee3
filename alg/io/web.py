"""HTTP for metrics and the status page: it is read, and nothing else can be done with it.

The server lives in the event loop that handles packets. One request is worked on at a time, so that
however many ask, packets wait for one step of one answer; of too many connections the oldest goes,
so that none that hangs keeps others out. A browser is told to run, load and frame nothing but
ours, and answered only by a name that nobody else can point at this router (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from aiohttp import web

MAX_CONNECTIONS = 32
MAX_LINE = 8190
TIMEOUT = 10.0
KEPT_OPEN = 75.0
GRACE = 0.5

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PICTURE_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""For an SVG that is opened by itself: it may do nothing."""

_HEADERS = {
    "Server": "sipnat",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

log = logging.getLogger("sipnat.web")

_UNHEARD = logging.Logger("aiohttp", logging.CRITICAL)
"""aiohttp logs a traceback for whatever a stranger sends that is not HTTP."""


class Asked(NamedTuple):
    """What a client wants: a path, the parameters behind it, and the types it takes."""

    path: str
    query: Mapping[str, str]
    accept: str


class Answer(NamedTuple):
    """What it gets."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    policy: str = PAGE_POLICY


Answering = Callable[[Asked], Awaitable[Answer]]


class WebServer:
    """Answers GET requests at an address and a port, by `answer`.

    A client must ask by an address, by the name of this machine, or by one of `names`.
    """

    def __init__(self, listen: str, names: tuple[str, ...], answer: Answering) -> None:
        """Takes where to listen, such as "127.0.0.1:9570" or "[::1]:9570"."""
        host, _, port = listen.rpartition(":")
        self._where = host.strip("[]"), int(port)
        self._names = {each.lower() for each in ("localhost", os.uname().nodename, *names)}
        self._answer = answer
        self._turn = asyncio.Lock()
        self._listener: asyncio.Server | None = None
        self._server: web.Server | None = None

    async def start(self) -> None:
        """Listens; raises OSError where that cannot be."""
        server = self._server = web.Server(
            self._serve,
            access_log=None,
            logger=_UNHEARD,
            keepalive_timeout=KEPT_OPEN,
            lingering_time=0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )

        def connect() -> asyncio.Protocol:
            connections = server.connections
            if len(connections) >= MAX_CONNECTIONS and (oldest := connections[0].transport):
                oldest.abort()
            return server()

        self._listener = await asyncio.get_running_loop().create_server(connect, *self._where)

    async def close(self) -> None:
        """Listens no more, and leaves every client where it is."""
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            for each in self._server.connections:
                if each.transport is not None:
                    each.transport.abort()
            await self._server.shutdown(GRACE)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await self._answer_to(request)
        headers = {
            **_HEADERS,
            "Content-Type": answer.content_type,
            "Content-Security-Policy": answer.policy,
        }
        if answer.status == 405:
            headers["Allow"] = "GET, HEAD"
        return web.Response(body=answer.body, status=answer.status, headers=headers)

    async def _answer_to(self, request: web.BaseRequest) -> Answer:
        if not self._is_ours(request.headers.getall("Host", [])):
            return refusal(403, "ask by an address, or name this host in `names` of [http]")
        if request.method not in ("GET", "HEAD"):
            return refusal(405, "this can only be read")
        asked = Asked(request.path, request.query, request.headers.get("Accept", ""))
        try:
            async with asyncio.timeout(TIMEOUT), self._turn:
                return await self._answer(asked)
        except TimeoutError:
            return refusal(503, "the gateway is busy")
        except Exception:
            log.exception("an HTTP request failed")
            return refusal(500, "the request failed, and the gateway's log says why")

    def _is_ours(self, hosts: list[str]) -> bool:
        """Whether a client asks by an address, or by a name that means this machine."""
        if len(hosts) != 1:
            return False
        host = hosts[0].lower()
        name, _, port = host.rpartition(":")
        if not port.isdigit():
            name = host
        try:
            return name in self._names or bool(ip_address(name.strip("[]")))
        except ValueError:
            return False


def refusal(status: int, sentence: str) -> Answer:
    """Returns an answer that says why there is no other."""
    return Answer(f"{sentence}\n".encode(), status=status)
