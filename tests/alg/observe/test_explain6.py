"""`sipnat explain` on calls over IPv6: routed where there is no external address for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alg.observe.network import Network
from nat_table.endpoint import Endpoint
from tests.alg.observe.test_explain import NETWORK, explain, texts
from tests.alg.observe.wire import udp, write_pcap
from tests.alg.playbook import (
    EXTERNAL6,
    NPTV6,
    PHONE6,
    ROUTED6,
    SERVER6,
    invite,
    request,
    response,
    sdp,
)


def capture(path: Path, phone: Endpoint, outside: str) -> Path:
    """Writes a call of the phone as the internal side sees it; `outside` is its address there."""
    near, far = str(phone), str(SERVER6)
    seen = invite(Endpoint(outside, phone.port))
    answer = response(seen, 200, body=sdp("2001:db8:ff::20", 6000), contact=f"<sip:bob@{far}>")
    call = invite(phone, sdp(phone.address, 4000))
    bye = request("BYE", phone, to_tag="b", cseq=2)
    return write_pcap(path, [udp(near, far, call), udp(far, near, answer), udp(near, far, bye)])


@pytest.mark.parametrize("network", [["--internal", "2001:db8:1::/48"], None])
def test_a59_a_routed_call_changes_no_byte_and_opens_its_media(
    tmp_path: Path, network: list[str] | None
) -> None:
    path = capture(tmp_path / "call.pcap", ROUTED6, ROUTED6.address)
    both = [*NETWORK, "--internal", "2001:db8:1::/48"]
    rows = explain(path, network=both if network is None else network)
    assert [row["direction"] for row in rows] == ["outbound", "inbound", "outbound"]
    assert {row["reason"] for row in rows} == {"nothing-to-change"}
    opened = {row["internal"]: row["external"] for row in rows[0]["opened"]}
    ends = [f"[{ROUTED6.address}]:{port}" for port in (5060, 4000, 4001)]
    assert opened == dict(zip(ends, ends, strict=True))


@pytest.mark.parametrize("external", [EXTERNAL6, "2001:db8:2::/48"])
def test_a59_a_call_behind_an_address_or_prefix_of_ipv6_is_rewritten(
    tmp_path: Path, external: str
) -> None:
    outside = NPTV6.to_external(PHONE6.address) if "/" in external else external
    assert outside is not None
    network = ["--internal", "fd00:1::/48", "--external", external, *NETWORK]
    rows = explain(capture(tmp_path / "call.pcap", PHONE6, outside), network=network)
    assert [row["reason"] for row in rows] == ["rewritten"] * 3
    assert f"Via: SIP/2.0/UDP [{outside}]:5060;" in texts(rows, "after")[0]
    assert f"c=IN IP6 {outside}\r\n" in texts(rows, "after")[0]
    assert f"Via: SIP/2.0/UDP {PHONE6};" in texts(rows, "after")[1]


def test_a59_a_capture_from_the_outside_is_read_too(tmp_path: Path) -> None:
    outside = NPTV6.to_external(PHONE6.address)
    call = udp(str(PHONE6), str(SERVER6), invite(PHONE6))
    ring = udp(str(SERVER6), f"[{outside}]:5060", request("OPTIONS", SERVER6, call_id="o"))
    network = ["--internal", "fd00:1::/48", "--external", "2001:db8:2::/48"]
    rows = explain(write_pcap(tmp_path / "a.pcap", [ring, call, ring]), network=network)
    assert [row["direction"] for row in rows] == ["none", "outbound", "inbound"]


@pytest.mark.parametrize(
    ("internal", "external"),
    [("fd00::/48", "2001:db8::/56"), ("10.0.0.0/8", "2001:db8::/56"), ("fd00::/48", "2001:g::/48")],
)
def test_prefixes_that_do_not_fit_are_refused(internal: str, external: str) -> None:
    with pytest.raises(ValueError, match=f'^--external is "{external}", allowed is a prefix'):
        Network([internal], ["203.0.113.1", external])
