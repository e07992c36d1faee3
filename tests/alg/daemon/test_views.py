"""What `sipnat show` asks for, answered from the engine and the kernel."""

from __future__ import annotations

import pytest

from alg.config import Config
from alg.daemon.views import Views
from alg.io.control import RequestRefused
from alg.upstream.grants import Grants
from alg.upstream.upstream import Upstream
from alg.verdict import Reason
from tests.alg.daemon.switchboard import EXTERNAL, PHONE, SERVER, Switchboard


@pytest.fixture
def board() -> Switchboard:
    return Switchboard()


@pytest.fixture
def views(board: Switchboard) -> Views:
    config = Config(internal=("lan0",), external="wan0")
    upstream = Upstream(config, EXTERNAL, lambda device: None)
    return Views(board.gateway, board.connections, board.kernel, upstream, Grants())


def test_a_connection_is_a_row_and_its_mapping_another(board: Switchboard, views: Views) -> None:
    board.connect(PHONE, SERVER)
    [connection] = views.show({"what": "connections"})
    [mapping] = views.show({"what": "mappings"})
    assert connection["mapping"] == mapping["external"]
    assert (mapping["state"], mapping["remote"]) == ("connected", str(SERVER))


def test_reasons_that_have_happened_stand_first(board: Switchboard, views: Views) -> None:
    board.gateway.count(Reason.OPAQUE)
    first, *others = views.show({"what": "reasons"})
    assert first == {"reason": "opaque", "count": 1, "counted_by": "gateway"}
    assert {row["reason"] for row in others} >= {each.value for each in Reason} - {"opaque"}


@pytest.mark.parametrize("what", ["nothing", None, 7])
def test_anything_else_is_refused_in_one_sentence(views: Views, what: object) -> None:
    with pytest.raises(RequestRefused, match="mappings, connections, reasons"):
        views.show({"what": what})
