"""Keys set in the text of a configuration; whatever else stands there stays as it is, to the byte.

Where a statement ends is found by reading it: TOML ends one with the line in which it is complete.
A key that is not set goes behind its default where that is shown in a comment ("#queue = 5060", as
in the sample), else behind the last key of the root: further down it would belong to a table.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from alg.observe.printable import printable

_SHOWN_DEFAULT = re.compile(r"#(\w+) = ")


class Setting(NamedTuple):
    """A value of a key, and a few words on why it is this one."""

    value: object
    why: str = ""


class _Statement(NamedTuple):
    """Lines of the text, counted from 0, and the keys that they set, or show the default of."""

    first: int
    behind: int
    keys: frozenset[str]
    is_comment: bool


def with_settings(text: str, settings: Mapping[str, Setting]) -> str:
    """Returns the text of a TOML file with these keys of its root set; it is valid before."""
    newline = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += newline
    lines = text.split("\n")
    statements = list(_statements(lines))
    edits = [
        (*_place(statements, key), setting_line(key, setting) + newline[:-1])
        for key, setting in settings.items()
    ]
    for first, behind, line in reversed(sorted(edits, key=lambda edit: edit[0])):
        lines[first:behind] = [line]
    return "\n".join(lines)


def setting_line(key: str, setting: Setting) -> str:
    """Returns a key's line, such as `external = "eth0"  # the default route leaves by it`."""
    comment = f"  # {printable(setting.why)}" if setting.why else ""
    value = json.dumps(setting.value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
    return f"{key} = {value}{comment}"


def _place(statements: list[_Statement], key: str) -> tuple[int, int]:
    """Returns which lines a key's line takes the place of; none where the two are the same."""
    named = [each for each in statements if key in each.keys]
    for each in named:
        if not each.is_comment:
            return each.first, each.behind
    above = named or [each for each in statements if not each.is_comment]
    behind = above[-1].behind if above else 0
    return behind, behind


def _statements(lines: list[str]) -> Iterator[_Statement]:
    """Yields what stands before the first table."""
    first = 0
    while first < len(lines) and not lines[first].lstrip().startswith("["):
        behind = first + 1
        while (keys := _keys(lines[first:behind])) is None:
            behind += 1
        if keys:
            yield _Statement(first, behind, keys, is_comment=False)
        elif shown := _SHOWN_DEFAULT.match(lines[first]):
            yield _Statement(first, behind, frozenset({shown[1]}), is_comment=True)
        first = behind


def _keys(lines: list[str]) -> frozenset[str] | None:
    """Returns the keys that lines set, None where a statement is not complete with them."""
    try:
        return frozenset(tomllib.loads("\n".join(lines) + "\n"))
    except tomllib.TOMLDecodeError:
        return None
