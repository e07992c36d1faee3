"""What `sipnat setup` writes and when, and what of an old file it leaves alone."""

from __future__ import annotations

import os
import subprocess
from importlib.resources import files

import pytest

from tests.lab.gateway import SIPNAT
from tests.lab.network import Network
from tests.lab.setup import INTERFACES, Setup, add_link
from tests.netns.firewalls import DOCKER

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

SAMPLE = (files("alg") / "deploy" / "sipnat.toml").read_text(encoding="utf-8")


def snapshot(network: Network) -> list[str]:
    run = network.router.run
    return [network.ruleset(), run("iptables-save"), run("ip", "route"), run("ip", "-4", "address")]


def test_a_plain_router_is_set_up_and_nothing_but_the_file_is_changed(
    network: Network, setup: Setup
) -> None:
    before = snapshot(network)
    text = setup.written()
    assert snapshot(network) == before
    added = [line for line in text.splitlines() if line not in SAMPLE.splitlines()]
    assert added == [f"{key} = {value}" for key, value in INTERFACES.items()]
    network.router.run(SIPNAT, "rules", "--config", str(setup.path))


def test_a_second_time_there_is_nothing_to_do(network: Network, setup: Setup) -> None:
    text = setup.written()
    again = setup.run()
    assert (again.returncode, again.stderr) == (0, "")
    assert "needs no change" in again.stdout
    assert setup.path.read_text() == text
    assert os.listdir(setup.path.parent) == ["sipnat.toml"]


@pytest.mark.parametrize(
    ("delete", "sentence"),
    [
        ("lan0", "no interface but wan0 is up and has a private network of phones: give"),
        ("wan0", "no interface has a default route: give --external IFACE"),
    ],
)
def test_a_router_for_which_nothing_fits(
    network: Network, setup: Setup, delete: str, sentence: str
) -> None:
    network.router.run("ip", "link", "delete", delete)
    done = setup.run("--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"sipnat: {sentence}")
    assert done.stderr.count("\n") == 1
    assert not setup.path.parent.exists()


def test_options_that_cannot_be(setup: Setup) -> None:
    for options, status, sentence in (
        (("--internal", "lan9"), 1, "there is no interface lan9"),
        (("--internal", "wan0"), 1, "wan0 is the external interface, so it cannot be"),
        (("--external", "lo"), 1, "there is no interface lo"),
    ):
        done = setup.run("--yes", *options)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith(f"sipnat: {sentence}"), done.stderr
    assert not setup.path.parent.exists()


FILE = """# mine, with care

external = "gone0"  # the old line
internal = [
    "lan0",
    "gone1",
]
max_calls_per_host = 7   # few
#on_failure = "pass"
on_failure = "hold"

[http]
listen = "127.0.0.1:9570"
"""


def test_what_a_file_says_stays_but_for_interfaces_that_are_gone(
    network: Network, setup: Setup
) -> None:
    setup.write(FILE)
    setup.path.chmod(0o600)
    done = setup.run("--yes")
    assert '  - external = "gone0"\n' in done.stdout
    lines = [f"{key} = {value}" for key, value in INTERFACES.items()]
    wanted = FILE.replace('external = "gone0"  # the old line', lines[1])
    old = FILE[FILE.index("internal") : FILE.index("max_")]
    assert setup.path.read_text() == wanted.replace(old, f"{lines[0]}\n")
    backup = setup.path.with_name("sipnat.toml.bak")
    assert f"written; the old file is {backup}\n" in done.stdout
    assert backup.read_text() == FILE
    assert setup.path.stat().st_mode & 0o777 == 0o600


def test_choices_of_the_administrator_stay_and_others_are_named(
    network: Network, setup: Setup
) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    add_link(network, "br0", "192.168.1.1/24")
    network.add_uplink()
    setup.write('internal = ["lan0"]\nexternal = "wan1"\ninstall_accept = "none"\n')
    done = setup.run("--yes")
    said = " ".join(done.stdout.split())
    assert "needs no change" in said
    assert "phones behind br0 are not served: --internal lan0 --internal br0" in said
    assert "the default route leaves by wan0: --external wan0 takes it for wan1" in said
    assert "iptables -I DOCKER-USER" in said
    keys, _ = setup.proposed("--external", "wan0")
    assert keys == {"external": INTERFACES["external"]}


def test_a_key_that_nobody_knows_is_kept_and_told(setup: Setup) -> None:
    setup.write("colour = 3\n")
    done = setup.run("--yes")
    assert "colour = 3\n" in setup.path.read_text()
    assert "sipnat run does not take this file" in done.stdout
    assert "next:" not in done.stdout
    assert done.returncode == 2
    assert done.stderr.startswith(f'sipnat: {setup.path}: unknown key "colour"')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("internal = [\n", "is not TOML"),
        ('queue = "x"\n', 'queue is "x", allowed is a number from 0 to 65535'),
        ("\udcff", "is not UTF-8 text"),
    ],
)
def test_a_file_with_a_fault_stays_as_it_is(setup: Setup, text: str, sentence: str) -> None:
    setup.path.parent.mkdir()
    setup.path.write_bytes(text.encode(errors="surrogateescape"))
    done = setup.run("--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert setup.path.read_bytes() == text.encode(errors="surrogateescape")


def test_with_nobody_to_ask_it_is_shown_and_not_written(setup: Setup) -> None:
    done = setup.run()
    assert done.returncode == 1
    assert done.stderr == "sipnat: nothing was written: --yes writes it without asking\n"
    assert f"{setup.path}:\n  + internal" in done.stdout
    assert not setup.path.parent.exists()


def test_without_root_it_tells_what_it_can_and_does_not_ask_in_vain(
    network: Network, setup: Setup
) -> None:
    setup.path.parent.mkdir()
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    command = network.router.command(*nobody, SIPNAT, "setup", "--config", str(setup.path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=40)
    assert (done.returncode, "  + internal" in done.stdout) == (1, True), done.stderr
    assert "skipped  firewall:" in done.stdout
    assert done.stderr.startswith("sipnat: nothing was written: ")
    assert done.stderr.endswith("is not writable, root may be needed\n")


def test_a_terminal_is_asked_and_enter_means_yes(setup: Setup) -> None:
    status, said = setup.answer("n\n")
    assert (status, setup.path.exists()) == (1, False)
    assert "nothing was written" in said
    status, said = setup.answer("\x04")  # the end of what is typed; Ctrl-C is the same
    assert (status, setup.path.exists()) == (1, False)
    assert "]: \r\nsipnat: nothing was written\r\n" in said
    status, said = setup.answer("\n")
    assert (status, setup.path.exists()) == (0, True)
    assert f"Write it to {setup.path}? [Y/n]" in said
