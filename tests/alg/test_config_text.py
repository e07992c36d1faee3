"""Keys are set in a configuration's text, and not one other byte of it changes."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alg.config_file import load_config
from alg.config_text import Setting, setting_line, with_settings

SAMPLE = (files("alg") / "deploy" / "sipnat.toml").read_text(encoding="utf-8")


def test_a_key_takes_the_place_of_what_it_said() -> None:
    text = '# mine\ninternal = ["lan0"] # phones\nexternal = "wan0"\n'
    assert with_settings(text, {"internal": Setting(["eth1", "eth2"], "two")}) == (
        '# mine\ninternal = ["eth1", "eth2"]  # two\nexternal = "wan0"\n'
    )


def test_a_value_of_several_lines_goes_as_a_whole() -> None:
    text = 'internal = [\n  "a", # ]\n  """b = [""",\n]\nexternal = "w"\n'
    assert with_settings(text, {"internal": Setting(["c"])}) == (
        'internal = ["c"]\nexternal = "w"\n'
    )


def test_what_only_looks_like_the_key_is_left_alone() -> None:
    text = 'password = """\nqueue = 7\n"""\n"external" = "w"\n[hep]\nqueue = 8\n'
    assert with_settings(text, {"queue": Setting(9), "external": Setting("x")}) == (
        'password = """\nqueue = 7\n"""\nexternal = "x"\nqueue = 9\n[hep]\nqueue = 8\n'
    )


def test_a_new_key_goes_behind_its_default_in_the_sample() -> None:
    text = with_settings(SAMPLE, {"install_accept": Setting("auto", "Docker")})
    added = '#install_accept = "none"\ninstall_accept = "auto"  # Docker\n'
    assert text == SAMPLE.replace('#install_accept = "none"\n', added)


def test_new_keys_keep_their_order_before_the_first_table() -> None:
    text = 'external = "w"\n\n# people\n[http]\nlisten = ""'
    assert with_settings(text, {"internal": Setting(["a"]), "queue": Setting(1)}) == (
        'external = "w"\ninternal = ["a"]\nqueue = 1\n\n# people\n[http]\nlisten = ""\n'
    )


@pytest.mark.parametrize("text", ["", "# nothing yet", "[http]\n"])
def test_a_file_without_keys(text: str) -> None:
    made = with_settings(text, {"queue": Setting(1)})
    assert tomllib.loads(made) == {"queue": 1} | tomllib.loads(text)


def test_ends_of_lines_stay_those_of_windows() -> None:
    assert with_settings("a = 1\r\nb = [\r\n2]\r\nc = 3", {"b": Setting(4), "d": Setting(5)}) == (
        "a = 1\r\nb = 4\r\nc = 3\r\nd = 5\r\n"
    )


def test_a_reason_cannot_break_the_file() -> None:
    line = setting_line("queue", Setting(1, "a\nb = 2\x7f has it"))
    assert tomllib.loads(line) == {"queue": 1}


def test_the_sample_as_it_is_written_is_taken_by_run(tmp_path: Path) -> None:
    path = tmp_path / "sipnat.toml"
    settings = {"internal": Setting(["eth1"]), "external": Setting("eth0"), "queue": Setting(7)}
    path.write_text(with_settings(SAMPLE, settings))
    config = load_config(path)
    assert (config.internal, config.external, config.queue) == (("eth1",), "eth0", 7)


KEYS = st.sampled_from(["internal", "external", "queue", "other", "x-y"])
VALUES = st.sampled_from(
    ["1", '"a # b"', "'''\nqueue = 3\n'''", "[1,\n 2, # 3]\n]", "{ a = 1 }", '"""\n[t]\n"""', "[]"]
)
NOISE = st.sampled_from(["", "# external = 3", "#queue = 5", "  ", "# [x]"])
SETTINGS = st.dictionaries(
    st.sampled_from(["internal", "external", "queue"]),
    st.builds(Setting, st.one_of(st.integers(0, 9), st.text(), st.lists(st.text())), st.text()),
)


@given(st.dictionaries(KEYS, VALUES), st.lists(NOISE), st.booleans(), SETTINGS, st.booleans())
def test_it_says_what_it_said_and_what_was_set(
    root: dict[str, str],
    noise: list[str],
    has_table: bool,
    settings: dict[str, Setting],
    ends: bool,
) -> None:
    lines = [f"{key} = {value}" for key, value in root.items()]
    for position, each in enumerate(noise):
        lines.insert(2 * position, each)
    text = "\n".join([*lines, *(["[table]", "queue = 1"] if has_table else [])]) + "\n" * ends
    made = with_settings(text, settings)
    wanted = tomllib.loads(text) | {key: each.value for key, each in settings.items()}
    assert tomllib.loads(made) == wanted
    untouched = [line for line in text.split("\n") if line in noise and line]
    assert [line for line in made.split("\n") if line in untouched] == untouched
