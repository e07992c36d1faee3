"""What `sipnat show` asks for, answered from the engine and the kernel."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Iterable
from typing import Any, cast

import pytest

from alg.config import Config
from alg.daemon.selection import FILTERS, parse_selection
from alg.daemon.views import View, Views
from alg.datagram import Datagram, Side
from alg.io.clock import now
from alg.io.control import RequestRefused
from alg.upstream.grants import Grants
from alg.upstream.upstream import Upstream
from alg.verdict import Reason
from nat_table.behavior import Behavior
from nat_table.binding import ANYONE, Kind, Owner, Permit
from nat_table.endpoint import TCP, UDP, Endpoint, parse_endpoint
from nat_table.lease import Source, lease_owner
from rules.inspection import Inspection
from rules.traffic import Traffic
from tests.alg.daemon.switchboard import EXTERNAL, PHONE, SERVER, Switchboard

RTP = Endpoint("10.0.0.20", 4000)
RTCP = Endpoint("10.0.0.20", 4001)
OTHER = Endpoint("10.0.0.21", 4000)
MAX_CONNECTIONS = 20
CALL, SECOND_CALL = Owner("call", "a@10.0.0.20", "1"), Owner("call", "b@10.0.0.20", "1")

Rows = list[dict[str, Any]]


class Shown:
    """The views of a switchboard, asked as the control socket asks."""

    def __init__(self, board: Switchboard) -> None:
        self.board = board
        config = Config(internal=("lan0",), external="wan0")
        self.views = Views(
            board.gateway,
            board.connections,
            board.kernel,
            board.ledger,
            Upstream(config, EXTERNAL, lambda device: None),
            Grants(),
            MAX_CONNECTIONS,
        )

    def __call__(self, what: object, **options: object) -> Rows:
        answer = self.views.show({"what": what, **options})
        if isinstance(answer, Awaitable):
            assert inspect.iscoroutine(answer)
            answer = asyncio.run(answer)
        rows = cast(Iterable[dict[str, Any] | None], answer)
        return [row for row in rows if row is not None]

    def bind(self, internal: Endpoint, kind: Kind, *owners: Owner) -> None:
        """Makes a mapping for these owners."""
        moment = now()
        for owner in owners:
            permits = (ANYONE,) if owner.scope == "lease" else ()
            self.board.table.bind(
                UDP, internal, kind, owner, now=moment, expires_at=moment + 60, permits=permits
            )

    def send(self, text: str, *, is_outbound: bool) -> None:
        """Has the engine see a message between the phone and the server."""
        phone, sides = Endpoint(PHONE.address, 5060), (Side.INTERNAL, Side.EXTERNAL)
        ends = (phone, SERVER)
        if not is_outbound:
            ends, sides = ends[::-1], sides[::-1]
        payload = text.replace("\n", "\r\n").encode()
        self.board.gateway.receive(Datagram(*ends, payload, *sides), now())


@pytest.fixture
def shown() -> Shown:
    return Shown(Switchboard())


def test_a_connection_is_a_row_and_its_mapping_another(shown: Shown) -> None:
    shown.board.connect(PHONE, SERVER)
    [connection] = shown("connections")
    [mapping] = shown("mappings")
    assert connection["mapping"] == mapping["external"]
    assert (mapping["state"], mapping["remote"]) == ("connected", str(SERVER))


def test_connections_of_one_phone(shown: Shown) -> None:
    shown.board.connect(PHONE, SERVER)
    shown.board.connect(Endpoint("10.0.0.21", 45000), SERVER)
    assert [row["phone"] for row in shown("connections", internal=PHONE.address)] == [str(PHONE)]
    assert shown("connections", internal="10.0.0.20:45001") == []


def test_reasons_that_have_happened_stand_first(shown: Shown) -> None:
    shown.board.gateway.count(Reason.OPAQUE)
    first, *others = shown("reasons")
    assert first == {"reason": "opaque", "count": 1, "counted_by": "gateway"}
    assert {row["reason"] for row in others} >= {each.value for each in Reason} - {"opaque"}


@pytest.mark.parametrize("what", ["nothing", None, 7])
def test_anything_else_is_refused_in_one_sentence(shown: Shown, what: object) -> None:
    with pytest.raises(RequestRefused, match="mappings, connections, registrations, reasons"):
        shown(what)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [RTP, RTCP, OTHER]),
        ({"internal": "10.0.0.20"}, [RTP, RTCP]),
        ({"internal": "10.0.0.20:4001"}, [RTCP]),
        ({"internal": "10.0.0.99:4001"}, []),
        ({"call_id": CALL.call_id}, [RTP]),
        ({"call_id": SECOND_CALL.call_id}, [RTP, RTCP]),
        ({"call_id": "pcp"}, []),
        ({"call_id": f"{SECOND_CALL.call_id[:-1]}~"}, [RTP, RTCP]),
        ({"call_id": SECOND_CALL.call_id[:-1]}, []),
        ({"kind": "rtcp"}, [RTCP]),
        ({"source": "pcp"}, [OTHER]),
        ({"source": "sip", "kind": "rtp"}, [RTP]),
        ({"internal": None, "kind": None}, [RTP, RTCP, OTHER]),
    ],
)
def test_mappings_are_chosen_by_host_call_kind_and_source(
    shown: Shown, filters: dict[str, object], expected: list[Endpoint]
) -> None:
    shown.bind(RTP, Kind.RTP, CALL, SECOND_CALL)
    shown.bind(RTCP, Kind.RTCP, SECOND_CALL)
    shown.bind(OTHER, Kind.ANY, lease_owner(Source.PCP))
    rows = shown("mappings", **filters)
    assert [row["internal"] for row in rows] == list(map(str, expected))


@pytest.mark.parametrize("host", ["2001:DB8:0::20", "[2001:db8::20]:5060", "2001:db8::20"])
def test_an_ipv6_host_is_found_however_it_is_spelled(host: str) -> None:
    selection = parse_selection({"internal": host}, FILTERS)
    assert selection.has(Endpoint("2001:db8::20", 5060))
    assert not selection.has(Endpoint("2001:db8::21", 5060))


@pytest.mark.parametrize(
    ("what", "filters", "sentence"),
    [
        ("mappings", {"kind": "video"}, "kind is video, allowed is one of sip, rtp, rtcp"),
        ("mappings", {"source": "x" * 5000}, "allowed is one of sip, pcp"),
        ("mappings", {"call_id": 7}, "call_id is not a text"),
        ("mappings", {"internal": "10.0.0.20:99999"}, "internal is 10.0.0.20:99999, allowed"),
        ("reasons", {"kind": "sip"}, "these rows cannot be chosen by kind"),
        ("connections", {"call_id": "a"}, "these rows cannot be chosen by call_id"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(
    shown: Shown, what: str, filters: dict[str, object], sentence: str
) -> None:
    with pytest.raises(RequestRefused, match=sentence) as refusal:
        shown(what, **filters)
    assert len(str(refusal.value)) < 200


def test_a_search_that_finds_little_has_steps_all_the_same(shown: Shown) -> None:
    for port in range(4000, 4050):
        shown.bind(Endpoint("10.0.0.20", port), Kind.RTP, CALL)
    rows = shown.views.show({"what": "mappings", "kind": "sip"})
    assert list(cast(Iterable[object], rows)) == [None] * 50


def test_what_mappings_carry_comes_from_the_kernel(shown: Shown) -> None:
    shown.bind(RTP, Kind.RTP, CALL)
    shown.bind(OTHER, Kind.RTP, CALL)
    assert {row["sent"] for row in shown("mappings", counters=True)} == {None}
    shown.board.kernel.carried = {
        (UDP, RTP): Traffic(50, 8600, 49, 8428),
        (TCP, OTHER): Traffic(1, 1, 1, 1),
    }
    first, second = shown("mappings", counters=True)
    counts = ("sent", "sent_bytes", "received", "received_bytes")
    assert [first[key] for key in counts] == [50, 8600, 49, 8428]
    assert [second[key] for key in counts] == [0, 0, 0, 0]
    assert "sent" not in shown("mappings")[0]


REGISTER = """REGISTER sip:203.0.113.10 SIP/2.0
Via: SIP/2.0/UDP 10.0.0.20:5060;branch=z9hG4bK1
From: <sip:1001@203.0.113.10>;tag=a
To: "Reception" <sip:1001@203.0.113.10>
Call-ID: reg@10.0.0.20
CSeq: 1 REGISTER
Contact: <sip:1001@10.0.0.20:5060>
Expires: 600
Content-Length: 0

"""


def test_a_registration_is_a_row_without_its_user_unless_asked_for(shown: Shown) -> None:
    shown.send(REGISTER, is_outbound=True)
    assert shown("registrations") == []
    external = shown("mappings")[0]["external"]
    answer = REGISTER.replace("REGISTER sip:203.0.113.10 SIP/2.0", "SIP/2.0 200 OK")
    answer = answer.replace("10.0.0.20:5060", external).replace("Recep", "recep")
    shown.send(answer, is_outbound=False)
    [row] = shown("registrations")
    assert 599 <= row.pop("expires_in") <= 600
    assert row == {
        "phone": "10.0.0.20:5060",
        "registrar": "203.0.113.10:5060",
        "mapping": external,
        "transport": "udp",
        "call_id": "reg@10.0.0.20",
    }
    [named] = shown("registrations", users=True, internal="10.0.0.20", call_id="reg@~")
    assert named["user"] == "sip:1001@203.0.113.10"
    assert (
        shown("registrations", call_id="other") == shown("registrations", internal="10.0.0.9") == []
    )


def test_limits_tell_who_is_nearest_to_each() -> None:
    shown = Shown(Switchboard(Behavior(max_mappings_per_host=5, denied_ports=frozenset({20000}))))
    for host, count in (("10.0.0.20", 2), ("10.0.0.21", 4), ("10.0.0.22", 1), ("10.0.0.23", 3)):
        for port in range(4000, 4000 + count):
            shown.bind(Endpoint(host, port), Kind.RTP, CALL)
    rows = shown("limits")
    per_host = [row for row in rows if row["limit"] == "max_mappings_per_host"]
    assert [(row["of"], row["used"], row["max"]) for row in per_host] == [
        ("10.0.0.21", 4, 5),
        ("10.0.0.23", 3, 5),
        ("10.0.0.20", 2, 5),
    ]
    first = {(row["limit"], row["counts"]): row for row in reversed(rows)}
    assert first["max_mappings", "mappings"]["used"] == 10
    assert first["max_new_mappings_per_second", "new mappings"]["used"] == 4
    external = [parse_endpoint(row["external"]) for row in shown("mappings")]
    assert first["ports", "udp ports"] == {
        "limit": "ports",
        "counts": "udp ports",
        "of": EXTERNAL,
        "used": sum(each.port >= 16384 for each in external),
        "max": 8191,
    }
    assert first["max_connections", "connections"]["max"] == MAX_CONNECTIONS
    assert first["max_calls_per_host", "calls"] == {
        "limit": "max_calls_per_host",
        "counts": "calls",
        "of": None,
        "used": 0,
        "max": 1024,
    }
    own = {row["limit"]: row for row in shown("limits", internal="10.0.0.22")}
    assert own["max_mappings_per_host"]["used"] == 1
    assert own["max_calls_per_host"]["of"] == "10.0.0.22"
    assert "max_mappings" not in own


def test_limits_count_leases_filters_and_connections(shown: Shown) -> None:
    moment, permits = now(), (Permit("198.51.100.0/24"),)
    owner = lease_owner(Source.PCP)
    shown.board.table.bind(
        UDP,
        OTHER,
        Kind.ANY,
        owner,
        now=moment,
        expires_at=moment + 60,
        permits=permits,
    )
    shown.board.connect(PHONE, SERVER)
    used = {row["limit"]: row["used"] for row in shown("limits")}
    assert (used["leases"], used["filters"], used["filters_per_host"]) == (1, 1, 1)
    assert used["max_connections"] == 1


def test_the_kernel_is_compared_with_the_table(shown: Shown) -> None:
    board = shown.board
    board.kernel.install()
    shown.bind(RTP, Kind.RTP, CALL)
    items = {row["item"]: row["value"] for row in shown("kernel")}
    assert (items["rules"], items["capture rule"], items["in step"]) == ("stand", "stands", "yes")
    assert (items["mappings in the table"], items["mappings in the kernel"]) == (1, 0)
    board.ledger.settle()
    board.ledger.is_behind = True
    items = {row["item"]: row["value"] for row in shown("kernel")}
    assert (items["in step"], items["mappings in the kernel"]) == ("behind, is mended soon", 1)
    assert items["set media"] == 1
    assert items["queue"] == "not known"


def test_another_kind_of_row_can_be_added(shown: Shown) -> None:
    shown.views.add(
        "calls", View(lambda request, selection: [{"host": selection.host}], ("internal",))
    )
    assert shown("calls", internal="10.0.0.20") == [{"host": "10.0.0.20"}]


def test_one_looks_at_the_kernel_at_a_time_even_where_askers_are_let_go(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, looking, most = shown.board.kernel, 0, 0
    look, has_begun = kernel.inspect, threading.Event()

    def look_slowly() -> Inspection:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        has_begun.set()
        time.sleep(0.05)
        looking -= 1
        return look()

    async def ask() -> None:
        answer = shown.views.show({"what": "kernel"})
        assert isinstance(answer, Awaitable)
        await answer

    async def scene() -> None:
        first = asyncio.ensure_future(ask())
        await asyncio.to_thread(has_begun.wait)
        first.cancel()
        await ask()

    monkeypatch.setattr(kernel, "inspect", look_slowly)
    asyncio.run(scene())
    assert most == 1
