"""The request `map` as plain values: what comes back, and what is refused by which code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alg.port_manager.leases import Ask
from alg.port_manager.refusal import NotAuthorized, Refused
from nat_table.binding import Kind
from nat_table.endpoint import TCP, UDP, Endpoint
from nat_table.lease import Source
from tests.alg.port_manager.office import MEDIA, OTHER, PHONE, SERVER, Office

ADD: dict[str, object] = {
    "action": "add",
    "internal": str(MEDIA),
    "type": "rtp",
    "remote": str(SERVER),
    "lifetime": 60,
    "name": "script",
}


@pytest.fixture
def office() -> Office:
    return Office()


def test_a_row_says_all_of_a_lease(office: Office) -> None:
    rtp, rtcp = office.command.answer(ADD)
    assert rtp == {
        "transport": "udp",
        "internal": "10.0.0.20:4000",
        "external": "203.0.113.1:4000",
        "kind": "rtp",
        "remote": str(SERVER),
        "source": "api",
        "name": "script",
        "expires_in": 60.0,
    }
    assert (rtcp["internal"], rtcp["external"]) == ("10.0.0.20:4001", "203.0.113.1:4001")
    assert office.command.answer({"action": "list"}) == [rtp, rtcp]


def test_the_list_has_the_leases_of_all_sources(office: Office) -> None:
    web = Endpoint("10.0.0.5", 8080)
    office.leases.request(Ask(Source.STATIC, TCP, web, 0, Kind.ANY), office.now)
    (row,) = office.command.answer({"action": "list"})
    assert (row["source"], row["transport"], row["kind"]) == ("static", "tcp", "any")
    assert row["expires_in"] is None


def test_an_update_changes_what_it_names_and_nothing_else(office: Office) -> None:
    office.command.answer(ADD)
    about = {key: ADD[key] for key in ("internal", "name")} | {"action": "update"}
    office.wait(10)
    (row,) = office.command.answer(about | {"remote": str(OTHER)})
    assert (row["remote"], row["expires_in"]) == (str(OTHER), 50.0)
    (row,) = office.command.answer(about | {"lifetime": 600})
    assert (row["remote"], row["expires_in"]) == (str(OTHER), 600.0)
    (row,) = office.command.answer(about | {"remote": None})
    assert row["remote"] is None


def test_a_release_returns_what_has_ended(office: Office) -> None:
    office.command.answer(ADD)
    about = {"action": "release", "internal": str(MEDIA), "name": "script"}
    (row,) = office.command.answer(about)
    assert (row["internal"], row["expires_in"]) == (str(MEDIA), 0.0)
    with pytest.raises(Refused) as refusal:
        office.command.answer(about)
    assert refusal.value.code == "no-mapping"


def test_an_administrator_ends_what_a_host_has_asked_for_but_nothing_static(office: Office) -> None:
    for source, internal in ((Source.PCP, MEDIA), (Source.STATIC, PHONE)):
        office.leases.request(Ask(source, UDP, internal, 600, name="00ff"), office.now)
    about = {"action": "release", "internal": str(MEDIA)}
    with pytest.raises(Refused, match="no udp mapping by nat-pmp"):
        office.command.answer(about | {"source": "nat-pmp"})
    (row,) = office.command.answer(about | {"source": "pcp"})
    assert (row["source"], row["name"], row["expires_in"]) == ("pcp", "00ff", 0.0)
    about = {"action": "release", "internal": str(PHONE)}
    with pytest.raises(NotAuthorized):
        office.command.answer(about | {"source": "static"})
    with pytest.raises(Refused, match="the source is none of pcp, nat-pmp, upnp, api"):
        office.command.answer(about | {"source": "sip"})
    assert [lease.source for lease in office.leases.all()] == [Source.STATIC]


def test_an_external_port_that_is_asked_for_is_had_or_refused(office: Office) -> None:
    first, _ = office.command.answer(ADD | {"external": 20000})
    assert first["external"] == "203.0.113.1:20000"
    with pytest.raises(Refused) as refusal:
        office.command.answer(ADD | {"external": 20000, "internal": "10.0.0.21:4000"})
    assert refusal.value.code == "cannot-provide-external"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"action": "steal"}, "refused"),
        ({"action": None}, "refused"),
        ({"type": "video"}, "refused"),
        ({"type": 7}, "refused"),
        ({"lifetime": 0}, "refused"),
        ({"lifetime": "long"}, "refused"),
        ({"name": "x" * 65}, "refused"),
        ({"name": "\x1b[2J"}, "refused"),
        ({"external": 65536}, "refused"),
        ({"external": -5}, "refused"),
        ({"external": 10**30}, "refused"),
        ({"external": 80}, "cannot-provide-external"),
        ({"transport": "sctp"}, "unsupported-transport"),
        ({"transport": "tls"}, "unsupported-transport"),
        ({"internal": "phone"}, "invalid-endpoint"),
        ({"internal": "10.0.0.20:0"}, "invalid-endpoint"),
        ({"remote": "203.0.113.10"}, "invalid-endpoint"),
        ({"internal": "[2001:db8::20%lan0]:4000"}, "invalid-endpoint"),
        ({"remote": "[2001:db8::20%lan0]:4000"}, "invalid-endpoint"),
        ({"remote": "[2001:db8::1]:5060"}, "invalid-endpoint"),
        ({"action": "update", "name": "other"}, "no-mapping"),
    ],
)
def test_what_is_wrong_has_a_code_and_one_sentence(
    office: Office, changed: dict[str, object], code: str
) -> None:
    with pytest.raises(Refused) as refusal:
        office.command.answer(ADD | changed)
    assert refusal.value.code == code
    assert "\n" not in str(refusal.value)
    assert len(office.table) == 0


TEXTS = st.text(max_size=20) | st.sampled_from(
    ["add", "update", "release", "udp", "tcp", "tls", "rtp", "sip", str(MEDIA), str(SERVER)]
)
VALUES = TEXTS | st.none() | st.booleans() | st.integers() | st.floats() | st.lists(TEXTS)


@given(st.dictionaries(st.sampled_from([*ADD, "transport", "external"]), VALUES))
def test_whatever_is_asked_is_granted_or_refused_by_name(changed: dict[str, object]) -> None:
    office = Office()
    try:
        rows = office.command.answer(ADD | changed)
    except Refused:
        rows = []
    assert len(rows) == len(office.table)
