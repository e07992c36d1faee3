"""Every way to write a configuration wrongly ends in one sentence that says what to write."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest

import alg
from alg.config import Config
from alg.config_file import ConfigError, load_config, reload_config
from nat_table.endpoint import TCP, UDP, Endpoint

SAMPLE = Path(alg.__file__).parent / "deploy" / "sipnat.toml"
SIDES = 'internal = ["lan0"]\nexternal = "wan0"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sipnat.toml"


def sentence(path: Path | None, **overrides: object) -> str:
    """Returns what is said about a wrong configuration, without the directory of its file."""
    with pytest.raises(ConfigError) as refusal:
        load_config(path, overrides)
    text = str(refusal.value)
    assert "\n" not in text
    return text.replace(f"{path.parent}/", "") if path else text


def test_the_two_sides_are_enough(file: Path) -> None:
    file.write_text(SIDES)
    assert load_config(file) == Config(internal=("lan0",), external="wan0")


def test_options_are_enough() -> None:
    config = load_config(None, {"internal": ["lan0", "lan1"], "external": "ppp0"})
    assert (config.internal, config.external) == (("lan0", "lan1"), "ppp0")


def test_options_override_the_file(file: Path) -> None:
    file.write_text(SIDES + 'log_level = "debug"\nqueue = 7\n')
    config = load_config(file, {"internal": ["br-lan.10"], "log_level": "error"})
    assert (config.internal, config.log_level) == (("br-lan.10",), "error")
    assert (config.external, config.queue) == ("wan0", 7)


def test_the_pool_is_the_range_in_numbers(file: Path) -> None:
    file.write_text(SIDES + 'ports = "1024-60999"\n')
    assert load_config(file).pool == (1024, 60999)


def test_the_sample_loads_as_it_is() -> None:
    assert load_config(SAMPLE) == Config(internal=("lan0",), external="wan0")


def test_the_sample_shows_every_key_with_its_default(file: Path) -> None:
    file.write_text(re.sub(r"^#(?=\S)", "", SAMPLE.read_text(), flags=re.MULTILINE))
    keys = re.findall(r"^(\w+) =", file.read_text(), flags=re.MULTILINE)
    assert keys == [field.name for field in msgspec.structs.fields(Config)]
    assert load_config(file) == Config(internal=("lan0",), external="wan0")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("internal = []", 'internal is [], allowed is a list of interface names, such as ["lan0"]'),
        ('internal = "lan0"', 'internal is "lan0", allowed is a list of interface names'),
        ('internal = ["lan0", "lan0"]', 'internal is ["lan0", "lan0"], allowed is each interface'),
        ('external = "lan0"', 'external is "lan0", allowed is an interface that is not internal'),
        ('external = "sixteen-letters-"', "allowed is an interface name (at most 15 letters"),
        ('external = "w\\"; flush ruleset"', "allowed is an interface name"),
        ('external = "wan0\\n"', 'external is "wan0\\n", allowed is an interface name'),
        ('external = "ppp+"', "allowed is an interface name"),
        ('external = ".."', "allowed is an interface name"),
        ('control = ""', 'control is "", allowed is a path of at most 107 ASCII characters'),
        (f'control = "/{"x" * 107}"', "allowed is a path of at most 107 ASCII characters"),
        (
            'log_level = "loud"',
            'allowed is "debug", "info", "warning" or "error"',
        ),
        (
            "sip_ports = []",
            "sip_ports is [], allowed is a list of at least one port from 1",
        ),
        ("sip_ports = [0]", "sip_ports is [0], allowed is"),
        ("sip_ports = [65536]", "sip_ports is [65536], allowed is"),
        ("sip_ports = [true]", "sip_ports is [true], allowed is"),
        ("sip_ports = 5060", "sip_ports is 5060, allowed is a list"),
        ('ports = "20000"', 'ports is "20000", allowed is a range "LOW-HIGH" within 1024-60999'),
        ('ports = "30000-20000"', 'ports is "30000-20000", allowed is'),
        ('ports = "20000-20000"', 'ports is "20000-20000", allowed is'),
        ('ports = "1023-2000"', 'ports is "1023-2000", allowed is'),
        ('ports = "60000-61000"', 'ports is "60000-61000", allowed is'),
        ("ports = [20000, 30000]", "ports is [20000, 30000], allowed is"),
        (
            'deny_ports = ["sip"]',
            'deny_ports is ["sip"], allowed is a list of ports from 1 to',
        ),
        ('media_hosts = ["pbx"]', 'media_hosts is ["pbx"], allowed is a list of addresses'),
        ('media_hosts = ["192.0.2.256"]', "allowed is a list of addresses"),
        ('media_hosts = ["192.0.2.01"]', "allowed is a list of addresses"),
        ('media_hosts = ["192.0.2"]', "allowed is a list of addresses"),
        ('media_hosts = ["2001:db8::1::2"]', "allowed is a list of addresses"),
        ('media_hosts = ["fe80::1%eth0"]', "allowed is a list of addresses"),
        ('routed = ["2001:db8::/129"]', "allowed is a list of addresses or networks"),
        ('mode6 = "on"', 'allowed is "auto", "pinhole", "nat66", "nptv6" or "off"'),
        ('internal_prefix6 = "fd00:1::1/64"', "allowed is an IPv6 prefix of at most 64 bits"),
        ('internal_prefix6 = "192.0.2.0/24"', "allowed is an IPv6 prefix of at most 64 bits"),
        ('internal_prefix6 = "fd00:1::/65"', "allowed is an IPv6 prefix of at most 64 bits"),
        ('internal_prefix6 = "fd00:1::/64"', "allowed is internal_prefix6 and external_prefix6 of"),
        ('queue = "five"', 'queue is "five", allowed is a number from 0 to 65535'),
        ("queue = 65536", "queue is 65536, allowed is"),
        ('on_failure = "drop"', 'on_failure is "drop", allowed is "pass" or "hold"'),
        ('external_address = "wan0"', 'allowed is "auto", "stun", "pcp" or an IPv4 address'),
        ('external_address = "203.0.113.256"', 'allowed is "auto", "stun", "pcp" or an IPv4'),
        ('external_address = "0.0.0.0"', "allowed is an address that a host can have"),
        ('external_address = "224.0.0.1"', "allowed is an address that a host can have"),
        ('external_address = "stun"', 'is "stun", allowed is that only with `stun_servers`'),
        ('stun_servers = ["stun.example.com:"]', "allowed is a list of STUN servers, such as"),
        ('stun_servers = ["stun.example.com:65536"]', "allowed is a list of STUN servers, such as"),
        ('stun_servers = ["[2001:db8::1]:3478"]', "allowed is a list of STUN servers, such as"),
        (
            'external_addresses = ["203.0.113.1", "203.0.113.2"]\nexternal_address = "pcp"',
            "allowed is one address of IPv4 where there is an external_address",
        ),
        ("flow_timeout = 0", "flow_timeout is 0, allowed is seconds, from 1 to 604800"),
        ("flow_timeout = nan", "flow_timeout is NaN, allowed is"),
        ("registration_timeout = inf", "registration_timeout is Infinity, allowed is"),
        ("ringing_timeout = 07:32:00", 'ringing_timeout is "07:32:00", allowed is'),
        ("max_message_size = 65536", "allowed is a number of bytes from 1024 to 65535"),
        ("max_mappings = 0", "max_mappings is 0, allowed is a number from 1 to 1000000"),
        ("max_mappings_per_host = 1.5", "max_mappings_per_host is 1.5, allowed is"),
    ],
)
def test_a_bad_value_is_shown_beside_what_is_allowed(file: Path, line: str, expected: str) -> None:
    key = line.split()[0]
    others = [other for other in SIDES.splitlines() if not other.startswith(key)]
    file.write_text("\n".join([*others, line]))
    text = sentence(file)
    assert text.startswith(f"sipnat.toml: {key} is ")
    assert expected in text


def test_a_long_value_is_cut(file: Path) -> None:
    file.write_text(f'external = "{"x" * 5000}"')
    assert len(sentence(file)) < 200


def test_an_option_is_named_as_it_was_given(file: Path) -> None:
    file.write_text(SIDES)
    assert sentence(file, log_level="loud").startswith('--log-level is "loud", allowed is "debug",')
    assert sentence(file, external="lan0").startswith('--external is "lan0", allowed is')


def test_an_unknown_key_is_met_with_the_one_that_was_meant(file: Path) -> None:
    file.write_text(SIDES + "flow-timeout = 30\n")
    expected = 'sipnat.toml: unknown key "flow-timeout", did you mean flow_timeout?'
    assert sentence(file) == expected


def test_an_unknown_key_like_no_other_is_met_with_all_keys(file: Path) -> None:
    file.write_text(SIDES + "[zzz]\nserver = 1\n")
    text = sentence(file)
    assert text.startswith('sipnat.toml: unknown key "zzz", allowed are internal, external, ')
    assert text.endswith("static")


@pytest.mark.parametrize("key", ["internal", "external"])
def test_a_missing_side_is_asked_for(file: Path, key: str) -> None:
    file.write_text("\n".join(line for line in SIDES.splitlines() if not line.startswith(key)))
    assert sentence(file).startswith(f"sipnat.toml: {key} is missing: give --{key}, or set the key")
    given = {"internal": ["lan0"], "external": "wan0"}
    del given[key]
    assert sentence(None, **given).startswith(f"{key} is missing: give --{key}, or set the key")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"queue = 1\nqueue 2\n",
            "is not TOML: Expected '=' after a key in a key/value pair",
        ),
        (b"queue = " + b"[" * 5000, "is not TOML: "),
        (b"queue = 1 # \xff", "is not UTF-8 text (at byte 12)"),
    ],
)
def test_what_is_not_toml_is_said_with_its_place(file: Path, content: bytes, expected: str) -> None:
    file.write_bytes(content)
    assert sentence(file).startswith(f"sipnat.toml: {expected}")


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert sentence(missing) == "missing.toml: cannot be read: No such file or directory"
    assert sentence(tmp_path).endswith(": cannot be read: Is a directory")


def test_what_might_never_end_is_not_read_again(file: Path) -> None:
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="no regular file"):
        reload_config(file, {})
    link = file.with_name("link")
    file.unlink()
    file.write_text(SIDES)
    link.symlink_to(file)
    assert reload_config(link, {}) == load_config(file)
    file.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        reload_config(link, {})


def test_a93_an_uplink_has_paths_and_ports_of_its_own_unless_they_are_given() -> None:
    keys = {"internal": ["lan0"], "external": "wan1"}
    second = load_config(None, {**keys, "uplink": 1})
    assert second.control_path == "/run/sipnat/control1.sock"
    assert second.store_path == "/var/lib/sipnat/state1.db"
    assert (second.queue_number, second.relay_number) == (5061, 15061)
    given = load_config(None, {**keys, "uplink": 1, "control": "/run/mine", "store": ""})
    assert (given.control_path, given.store_path) == ("/run/mine", "")
    first = load_config(None, keys)
    assert (first.control_path, first.store_path) == (first.control, first.store)


def test_without_tcp_there_is_no_relay_and_with_it_each_uplink_has_room_for_one() -> None:
    keys = {"internal": ["lan0"], "external": "wan1", "uplink": 1, "relay_port": 65535}
    assert load_config(None, {**keys, "tcp": False}).relay_number == 0
    with pytest.raises(ConfigError, match="a port that leaves one for each uplink"):
        load_config(None, keys)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("sip_ports", [5060, 5060], "each port once"),
        ("external_addresses", ["203.0.113.1"] * 2, "each address once"),
        ("routed", ["192.168.0.0/16", "0.0.0.0/0"], "what is reached without NAT, not everything"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(key: str, value: list[object], allowed: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(allowed)):
        load_config(None, {"internal": ["lan0"], "external": "wan0", key: value})


def test_ipv6_addresses_have_one_spelling() -> None:
    keys = {
        "internal": ["lan0"],
        "external": "wan0",
        "media_hosts": ["192.0.2.1", "2001:DB8:0::1"],
        "routed": ["2001:db8:0:1::7/64"],
        "internal_prefix6": "FD00:1:0::/48",
        "external_prefix6": "2001:db8:2::/48",
    }
    config = load_config(None, keys)
    assert config.media_hosts == ("192.0.2.1", "2001:db8::1")
    assert config.routed == ("2001:db8:0:1::/64",)
    assert config.internal_prefix6 == "fd00:1::/48"
    with pytest.raises(ConfigError, match="of one length, or none of the two"):
        load_config(None, {**keys, "external_prefix6": "2001:db8:2::/56"})


WEB = 'internal = "10.0.0.5:80"\nexternal = 8080\ntransport = "tcp"\n'


def test_static_mappings_are_tables(file: Path) -> None:
    pbx = 'internal = "10.0.0.6:5060"\nexternal = "203.0.113.1:5060"\ntransport = "udp"\n'
    file.write_text(f"{SIDES}[[static]]\n{WEB}[[static]]\n{pbx}")
    first, second = load_config(file).static
    assert first.socket == (TCP, Endpoint("10.0.0.5", 80))
    assert (first.external_port, first.external_endpoint) == (8080, None)
    assert second.socket == (UDP, Endpoint("10.0.0.6", 5060))
    assert second.external_port == 5060
    assert second.external_endpoint == Endpoint("203.0.113.1", 5060)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("10.0.0.5:80", "10.0.0.5"),
        ("10.0.0.5:80", "10.0.0.5:0"),
        ("10.0.0.5:80", "10.0.0.256:80"),
        ("10.0.0.5:80", "web:80"),
        ("8080", "1023"),
        ("8080", "65536"),
        ("8080", '"203.0.113.1:80"'),
        ("8080", '"203.0.113.1"'),
        ("8080", '"[2001:db8::1]:8080"'),
        ("8080", "true"),
        ('"tcp"', '"tls"'),
        ('transport = "tcp"\n', ""),
        ("external", "outside"),
    ],
)
def test_a_static_mapping_that_cannot_be_is_refused(file: Path, old: str, new: str) -> None:
    file.write_text(f"{SIDES}[[static]]\n{WEB.replace(old, new)}")
    assert sentence(file).startswith("sipnat.toml: static table 1")
    assert 'allowed is tables [[static]], each with internal = "ADDRESS:PORT"' in sentence(file)


def test_the_static_mapping_that_is_wrong_is_named_and_what_in_it(file: Path) -> None:
    other = WEB.replace("8080", "8081").replace('80"', '81"').replace("tcp", "sctp")
    file.write_text(f"{SIDES}[[static]]\n{WEB}[[static]]\n{other}")
    assert 'static table 2: transport is "sctp", allowed is' in sentence(file)


@pytest.mark.parametrize(
    ("old", "new"), [("8080", "8081"), ("10.0.0.5", "10.0.0.6"), ("8080", "8080")]
)
def test_static_mappings_that_collide_are_refused(file: Path, old: str, new: str) -> None:
    file.write_text(f"{SIDES}[[static]]\n{WEB}[[static]]\n{WEB.replace(old, new)}")
    assert sentence(file).endswith("allowed is each internal and each external endpoint once")
    apart = WEB.replace("tcp", "udp").replace(old, new)
    file.write_text(f"{SIDES}[[static]]\n{WEB}[[static]]\n{apart}")
    assert len(load_config(file).static) == 2
