"""README tells the truth: its ruleset is what is installed, its commands and words exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alg.cli import app
from nat_table.snapshot import MappingRow

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_ruleset_is_quoted_whole() -> None:
    assert (ROOT / "rules" / "ruleset.nft").read_text().rstrip() in README


def test_every_sipnat_command_it_names_exists() -> None:
    named = set(re.findall(r"^(?:sudo )?sipnat ([a-z]+(?: [a-z]+)?)", README, re.MULTILINE))
    assert named, "README shows commands"
    for command in named:
        result = CliRunner().invoke(app, [*command.split(), "--help"])
        assert result.exit_code == 0, f"sipnat {command}"


def test_every_dev_command_it_names_exists() -> None:
    script = (ROOT / "dev").read_text()
    for command in re.findall(r"\./dev ([a-z]+)", README):
        assert re.search(rf"^\s+{command}\b", script, re.MULTILINE), f"./dev {command}"


@pytest.mark.parametrize("path", ["README.md", "alg/deploy/README.md"])
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(path: str) -> None:
    page = ROOT / path
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        leads_to = page.parent / name if name else page
        assert leads_to.is_file(), target
        assert not anchor or anchor in anchors(leads_to.read_text()), target


def anchors(text: str) -> set[str]:
    """Returns where links may lead to in a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_field_of_json_is_described() -> None:
    for field in MappingRow.__annotations__:
        assert f"`{field}`" in README


def test_the_demo_it_shows_has_passed() -> None:
    assert "demo passed in" in README
