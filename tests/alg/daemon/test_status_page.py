"""What the status page is told, and what metrics say, from an engine and a kernel in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alg.config import Config, Http
from alg.daemon.ledger import Ledger
from alg.daemon.scrape import Scrape, count_mappings
from alg.daemon.status_page import StatusPage
from alg.io.control import Handler, Request, RequestRefused
from alg.io.web import Answer, Asked
from alg.observe.ladder import Ladder, draw_ladder
from alg.observe.media_activity import MediaActivity
from nat_table.binding import Kind, Owner
from nat_table.endpoint import UDP, Endpoint
from nat_table.lease import Source, lease_owner
from nat_table.table import NatTable
from tests.alg.daemon.switchboard import PHONE, SERVER, Switchboard

ROWS = [{"internal": f"10.0.0.{number % 250}:4000", "number": number} for number in range(2500)]


class Shown:
    """The control commands as the page sees them; `requests` are those it has made."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.handlers: dict[str, Handler] = {"show": self.show, "status": self.status}

    def show(self, request: Request) -> Iterator[Mapping[str, object]] | AsyncIterator[Any]:
        self.requests.append(request)
        if request["what"] == "calls":
            return self._calls()
        if request["what"] == "limits":
            raise RequestRefused("there are no limits")
        return iter(ROWS)

    def status(self, request: Request) -> list[Mapping[str, object]]:
        return [{"version": "1"}]

    async def _calls(self) -> AsyncIterator[Mapping[str, object]]:
        yield {"call_id": "<b>"}


@pytest.fixture
def shown() -> Shown:
    return Shown()


def page(shown: Shown, board: Switchboard, *, users: bool = False) -> StatusPage:
    config = Config(internal=("lan0",), external="wan0")
    ledger = Ledger(board.table, board.kernel)
    scrape = Scrape(config, board.gateway, ledger, board.kernel, board.connections, MediaActivity())
    return StatusPage(Http(listen="127.0.0.1:9570", users=users), shown.handlers, scrape)


def ask(page: StatusPage, path: str, **query: str) -> Answer:
    return asyncio.run(page.answer(Asked(path, query, "")))


def rows(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    decoded: dict[str, Any] = json.loads(answer.body)
    return decoded


def test_rows_come_in_pages(shown: Shown) -> None:
    served = page(shown, Switchboard())
    first = rows(ask(served, "/api/mappings"))
    assert [row["number"] for row in first["rows"]] == list(range(100))
    assert first["has_more"]
    last = rows(ask(served, "/api/mappings", offset="2000", limit="500"))
    assert [row["number"] for row in last["rows"]] == list(range(2000, 2500))
    assert not last["has_more"]
    assert rows(ask(served, "/api/mappings", offset="9999999")) == {"rows": [], "has_more": False}


def test_packets_have_time_while_rows_are_skipped(shown: Shown) -> None:
    served = page(shown, Switchboard())

    async def scene() -> int:
        turns = 0
        answering = asyncio.create_task(
            served.answer(Asked("/api/mappings", {"offset": "2400"}, ""))
        )
        while not answering.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(scene()) >= 24


@pytest.mark.parametrize(
    "query",
    [{"offset": "-1"}, {"limit": "1001"}, {"limit": "x"}, {"limit": "٣"}, {"offset": "9" * 5000}],
)
def test_a_page_that_cannot_be_is_refused(shown: Shown, query: dict[str, str]) -> None:
    assert ask(page(shown, Switchboard()), "/api/mappings", **query).status == 400


def test_filters_are_handed_on_and_nothing_else_is(shown: Shown) -> None:
    served = page(shown, Switchboard())
    ask(served, "/api/mappings", internal="10.0.0.20", call_id="x", users="true", command="flush")
    ask(served, "/api/calls", kind="", ended="true")
    first, second = shown.requests
    assert first == {
        **{"version": 1, "command": "show", "what": "mappings", "users": False},
        **{"internal": "10.0.0.20", "call_id": "x"},
    }
    assert second == {"version": 1, "command": "show", "what": "calls", "users": False}


def test_users_are_told_only_where_the_configuration_says_so(shown: Shown) -> None:
    ask(page(shown, Switchboard(), users=True), "/api/calls")
    assert shown.requests[0]["users"] is True


def test_packets_do_not_wait_for_a_ladder_to_be_drawn(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_by = []

    def draw(*arguments: Any) -> Ladder:
        drawn_by.append(threading.current_thread())
        return draw_ladder(*arguments)

    async def tell(request: Request) -> AsyncIterator[Mapping[str, object]]:
        yield {"event": "message", "time": 0.0, "direction": "outbound", "method": "INVITE"}

    shown.handlers["why"] = tell
    monkeypatch.setattr("alg.daemon.status_page.draw_ladder", draw)
    answer = ask(page(shown, Switchboard()), "/ladder.svg", call_id="a")
    assert answer.body.startswith(b"<svg")
    assert drawn_by and threading.main_thread() not in drawn_by


def test_rows_that_come_as_they_come_are_told_too(shown: Shown) -> None:
    answer = rows(ask(page(shown, Switchboard()), "/api/calls"))
    assert answer == {"rows": [{"call_id": "<b>"}], "has_more": False}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/api/limits", 400), ("/api/secrets", 404), ("/api/", 404), ("/api/../etc", 404)),
        *(("/nothing", 404), ("/index.html", 404), ("//", 404), ("", 404), ("status", 404)),
    ],
)
def test_there_is_nothing_else(shown: Shown, path: str, status: int) -> None:
    answer = ask(page(shown, Switchboard()), path)
    assert (answer.status, answer.content_type) == (status, "text/plain; charset=utf-8")


def test_the_page_loads_nothing_from_elsewhere(shown: Shown) -> None:
    served = page(shown, Switchboard())
    for path in ("/", "/page.css", "/page.js", "/icon.svg"):
        text = ask(served, path).body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text and "url(" not in text and "@import" not in text
    script = ask(served, "/page.js").body.decode()
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert sink not in script
    markup = ask(served, "/").body.decode()
    assert " style=" not in markup and " onclick=" not in markup and "<style" not in markup


def test_mappings_are_counted_by_kind_and_source() -> None:
    board = Switchboard()
    board.connect(PHONE, SERVER)
    bind(board.table, 4000, Kind.RTP, Owner("call", "x"))
    bind(board.table, 4001, Kind.RTCP, Owner("call", "x"))
    bind(board.table, 8080, Kind.ANY, lease_owner(Source.PCP, "n"))
    counts = asyncio.run(count_mappings(board.table))
    assert counts == {
        ("udp", "rtp", "sip"): 1,
        ("udp", "rtcp", "sip"): 1,
        ("udp", "any", "pcp"): 1,
        ("tcp", "sip", "sip"): 1,
    }


def bind(table: NatTable, port: int, kind: Kind, owner: Owner) -> None:
    endpoint = Endpoint(PHONE.address, port)
    table.bind(UDP, endpoint, kind, owner, now=0.0, expires_at=1e9)


def test_metrics_say_what_stands(shown: Shown) -> None:
    board = Switchboard()
    board.connect(PHONE, SERVER)
    answer = ask(page(shown, board), "/metrics")
    assert answer.content_type.startswith("text/plain; version=")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    assert samples["sipnat_mappings", "sip", "sip", "tcp"] == 1
    assert samples["sipnat_kernel_behind",] == 0
    assert samples["sipnat_limit_used", "connections", "max_connections", ""] == 1
    assert samples["sipnat_limit_max", "connections", "max_connections", ""] == 20000
