"""`sipnat show` on live calls: every kind of row, as text of 80 columns and as JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from tests.lab.agents import wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, SERVER, Network
from tests.lab.site import SERVER_MEDIA_1, Site

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

Rows = list[dict[str, Any]]
KINDS = ("mappings", "connections", "registrations", "reasons", "limits", "kernel", "upstream")


def rows(gateway: Gateway, *arguments: str) -> Rows:
    found: Rows = json.loads(gateway.show(*arguments, "--json"))
    return found


def items(gateway: Gateway) -> dict[str, Any]:
    return {row["item"]: row["value"] for row in rows(gateway, "kernel")}


def test_every_kind_of_row_fits_80_columns_during_a_call(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_1)
    site.call_out(site.phone_1)
    for kind in KINDS:
        lines = gateway.show(kind).splitlines()
        assert lines
        assert all(len(line) <= 80 and line.isprintable() for line in lines), kind
        assert len(rows(gateway, kind)) == (0 if lines[0].startswith("no ") else len(lines) - 1)


def test_mappings_are_chosen_and_counted(site: Site, gateway: Gateway) -> None:
    sent, offered = site.call_out(site.phone_1)
    other, _ = site.call_out(site.phone_2, answer=site.server.offer())
    talk = site.talk(site.phone_1, offered, SERVER_MEDIA_1)
    assert talk.flows_on()
    talk.stop()
    assert {row["internal"] for row in rows(gateway, "mappings", "--call-id", sent.call_id)} == {
        f"{PHONE_1}:{port}" for port in (5060, 4000, 4001)
    }
    [rtp] = rows(gateway, "mappings", "--internal", f"{PHONE_2}:4000")
    assert rtp["call_id"] == other.call_id
    assert {row["kind"] for row in rows(gateway, "mappings", "--kind", "sip")} == {"sip"}
    assert rows(gateway, "mappings", "--source", "pcp") == []

    counted = rows(gateway, "mappings", "--counters", "--internal", PHONE_1, "--kind", "rtp")
    [before] = counted
    assert before["sent"] >= 10 and before["received"] >= 10
    assert before["sent_bytes"] / before["sent"] == before["received_bytes"] / before["received"]
    line = gateway.show("mappings", "--counters", "--internal", f"{PHONE_1}:4000").splitlines()[1]
    assert line.split()[3:6:2] == [str(before["sent"]), str(before["received"])]


def test_a_watch_shows_rates_of_a_call(site: Site, network: Network, gateway: Gateway) -> None:
    _, offered = site.call_out(site.phone_1)
    talk = site.talk(site.phone_1, offered, SERVER_MEDIA_1)
    assert talk.flows_on()
    command = [SIPNAT, "show", "mappings", "--watch", "--json", "--internal", f"{PHONE_1}:4000"]
    with subprocess.Popen(
        network.router.command(*command, "--control", gateway.control), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        written = b""
        while written.count(b"]") < 3:
            read = os.read(process.stdout.fileno(), 65536)
            assert read, "it has ended by itself"
            written += read
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(5) == 130
    frames, decoder = [], json.JSONDecoder()
    for text in written.decode().split("]")[:3]:
        frames.append(decoder.decode(text + "]")[0])
    assert frames[0]["sent_rate"] is None
    # 50 packets a second; frames come when this machine has time for them.
    assert all(10 < frame["sent_rate"] < 200 for frame in frames[1:])
    assert all(10 < frame["received_rate"] < 200 for frame in frames[1:])


def test_registrations_name_the_phone_the_registrar_and_the_mapping(
    site: Site, gateway: Gateway
) -> None:
    for phone in (site.phone_1, site.phone_2):
        site.register(phone, expires=600)
    first, second = sorted(rows(gateway, "registrations"), key=lambda row: str(row["phone"]))
    assert (first["phone"], first["registrar"]) == (f"{PHONE_1}:5060", f"{SERVER}:5060")
    assert 590 < first["expires_in"] <= 600
    assert second["mapping"].startswith(f"{EXTERNAL}:")
    assert "user" not in first and "phone1" not in gateway.show("registrations")
    [named] = rows(gateway, "registrations", "--users", "--internal", PHONE_1)
    assert named["user"] == f"sip:phone1@{SERVER}"

    gateway.stop()
    gateway.start()
    assert (
        rows(gateway, "registrations", "--users", "--internal", PHONE_1)[0]["user"]
        == (named["user"])
    )


def test_limits_follow_what_hosts_use(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_2)
    site.call_out(site.phone_1)
    found = {(row["limit"], row["of"]): row["used"] for row in rows(gateway, "limits")}
    assert found["max_mappings", None] == 4
    assert found["max_mappings_per_host", PHONE_1] == 3
    assert found["max_mappings_per_host", PHONE_2] == 1
    assert found["max_calls_per_host", PHONE_1] == 1
    assert found["max_registrations_per_host", PHONE_2] == 1
    assert found["max_unanswered_per_host", None] == 0
    own = rows(gateway, "limits", "--internal", PHONE_2)
    assert {row["of"] for row in own} == {PHONE_2}


def test_the_kernel_tells_of_rules_queue_and_flows(
    site: Site, network: Network, gateway: Gateway
) -> None:
    site.call_out(site.phone_1)
    found = items(gateway)
    assert (found["rules"], found["capture rule"], found["in step"]) == ("stand", "stands", "yes")
    assert found["queue waiting"] == found["queue dropped"] == found["queue undelivered"] == 0
    assert found["queue packets"] >= 4
    assert found["conntrack flows"] >= 1
    assert found["mappings in the table"] == found["mappings in the kernel"] == 3
    assert (found["set signalling"], found["set media"]) == (1, 2)
    assert found["counter refused-signalling"] == 0

    network.router.run("nft", "flush", "ruleset")
    assert wait_until(lambda: items(gateway)["mappings in the kernel"] == 3, 10.0)


def test_a_watch_of_the_kernel_sees_the_table_go(network: Network, gateway: Gateway) -> None:
    command = network.router.command(SIPNAT, "show", "kernel", "-w", "--control", gateway.control)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert b"rules" in os.read(process.stdout.fileno(), 65536)
        gateway.kill()
        assert b"no sipnat is running" in process.stderr.read()
        process.stdout.read()
        assert process.wait(5) == 1
