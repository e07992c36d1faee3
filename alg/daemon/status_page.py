"""What the HTTP port serves: the status page, what it asks for, and metrics.

    /                   the page (alg/io/page), which loads the rest
    /api/status         one row, as the control command `status`
    /api/calls          and the other things that `show` shows: {"rows": [...], "has_more": ...}
    /ladder.svg         the ladder of one call
    /metrics            for Prometheus

The page knows nothing that the control socket does not tell; who may read it is everybody who can
reach the port, so the users of calls are told only where the configuration says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.resources import files

import msgspec

from alg.config import Http
from alg.daemon.scrape import Scrape
from alg.daemon.selection import FILTERS
from alg.io.control import Handler, RequestRefused
from alg.io.paging import take
from alg.io.web import PICTURE_POLICY, Answer, Asked, WebServer, refusal
from alg.observe.entry import parse_entries, parse_streams
from alg.observe.exposition import render_metrics
from alg.observe.ladder import draw_ladder
from alg.observe.ladder_svg import render_svg

SHOWN = (
    *("calls", "mappings", "registrations", "connections"),
    *("reasons", "limits", "kernel", "upstream"),
)
ROWS_AT_ONCE = 100
MAX_ROWS = 1000
MAX_RUNGS = 500
MAX_OFFSET = 10_000_000

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class StatusPage:
    """Serves the page, from the commands of the control socket."""

    def __init__(self, http: Http, handlers: Mapping[str, Handler], scrape: Scrape) -> None:
        self._has_users = http.users
        self._handlers = handlers
        self._scrape = scrape
        page = files("alg.io").joinpath("page")
        self._files = {
            path: Answer(page.joinpath(name).read_bytes(), content_type)
            for path, (name, content_type) in _FILES.items()
        }
        self._server = WebServer(http.listen, http.names, self.answer)

    async def start(self) -> None:
        """Serves; raises OSError where it cannot listen."""
        await self._server.start()

    async def close(self) -> None:
        """Serves no more."""
        await self._server.close()

    async def answer(self, asked: Asked) -> Answer:
        """Answers one request."""
        if asked.path in self._files:
            return self._files[asked.path]
        if asked.path == "/metrics":
            return Answer(*render_metrics(await self._scrape.read(), asked.accept))
        try:
            if asked.path == "/ladder.svg":
                return await self._ladder(asked.query.get("call_id", ""))
            return await self._rows(asked)
        except RequestRefused as refused:
            return refusal(404 if refused.code == "unknown" else 400, str(refused))

    async def _rows(self, asked: Asked) -> Answer:
        """Answers with a part of the rows; raises RequestRefused."""
        what = asked.path.removeprefix("/api/")
        command = "status" if what == "status" else "show"
        if asked.path == what or command not in self._handlers:
            raise RequestRefused("there is nothing here", "unknown")
        if command == "show" and what not in SHOWN:
            raise RequestRefused(f"there is nothing to show but {', '.join(SHOWN)}", "unknown")
        request: dict[str, object] = {"version": 1, "command": command, "what": what}
        request |= {key: asked.query[key] for key in FILTERS if asked.query.get(key)}
        request["users"] = self._has_users
        first = _number(asked, "offset", 0, MAX_OFFSET)
        count = _number(asked, "limit", ROWS_AT_ONCE, MAX_ROWS)
        rows = await take(self._handlers[command](request), first, count + 1)
        body = msgspec.json.encode({"rows": rows[:count], "has_more": len(rows) > count})
        return Answer(body, "application/json")

    async def _ladder(self, call_id: str) -> Answer:
        """Draws a call; raises RequestRefused."""
        tell, show = self._handlers.get("why"), self._handlers["show"]
        if tell is None:
            raise RequestRefused("nothing is remembered of calls", "unknown")
        request: dict[str, object] = {"version": 1, "command": "why", "call_id": call_id}
        entries = parse_entries(await take(tell(request), 0, MAX_RUNGS))
        request |= {"command": "show", "what": "calls", "ended": True}
        streams = parse_streams(await take(show(request), 0, MAX_ROWS))
        # A long story takes half a second.
        picture = await asyncio.to_thread(
            lambda: render_svg(draw_ladder(f"call {call_id}", entries, streams)).encode()
        )
        return Answer(picture, "image/svg+xml", policy=PICTURE_POLICY)


def _number(asked: Asked, key: str, default: int, most: int) -> int:
    """Returns a number of the query; raises RequestRefused."""
    text = asked.query.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        raise RequestRefused(f"{key} is not a number from 0 to {most}")
    return int(text)
