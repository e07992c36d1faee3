"""Manual pages and completion are those of the commands as they are, and programs can read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alg.cli.manual import completion, manual

DEPLOY = Path(__file__).resolve().parents[2] / "alg" / "deploy"
PAGES = manual()
SIPNAT = Path(sys.executable).with_name("sipnat")


def test_the_files_are_those_of_the_commands() -> None:
    made = PAGES | completion()
    found = {
        f"{folder}/{path.name}": path.read_text()
        for folder in ("man", "completion")
        for path in (DEPLOY / folder).iterdir()
    }
    assert found == made, "run ./dev man"


def test_every_command_has_a_page_that_names_its_options() -> None:
    assert "man/sipnat.1" in PAGES and "man/sipnat-show-mappings.1" in PAGES
    page = PAGES["man/sipnat-map-add.1"]
    assert "\\-\\-type sip|rtp|rtcp" in page and "The default is udp." in page
    assert "sipnat\\-map\\-add" in PAGES["man/sipnat-map.1"]


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
@pytest.mark.parametrize("name", sorted(PAGES))
def test_groff_has_no_warning_and_no_line_is_too_long(name: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=80n", "-z", str(DEPLOY / name)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
def test_man_shows_a_page() -> None:
    plain = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"}
    done = subprocess.run(
        ["man", "--warnings", "-l", str(DEPLOY / "man/sipnat-doctor.1")],
        capture_output=True,
        text=True,
        timeout=20,
        env=plain,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "sipnat doctor" in done.stdout and "--internal IFACE" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sipnat", "do"], ["doctor"]),
        (["sipnat", "map", "re"], ["release"]),
        (["sipnat", "map", "add", "--typ"], ["--type"]),
        (["sipnat", "map", "add", "--type", "rt"], ["rtp", "rtcp"]),
    ],
)
def test_bash_completes_commands_options_and_values(typed: list[str], offered: list[str]) -> None:
    script = (
        f"source {DEPLOY}/completion/sipnat\n"
        f"complete -p sipnat >/dev/null || exit 9\n"
        f"COMP_WORDS=({' '.join(typed)}) COMP_CWORD={len(typed) - 1}\n"
        f"_sipnat_completion {SIPNAT}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=40
    )
    assert (done.stdout.split(), done.returncode) == (offered, 0), done.stderr
