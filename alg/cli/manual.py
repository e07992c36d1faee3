"""Manual pages and shell completion, made from the commands themselves.

`python -m alg.cli.manual` writes them to `alg/deploy`, from where packages install them; a test
tells when they are not those of the commands as they are. Completion asks the program itself.
"""

from __future__ import annotations

import importlib.metadata
import textwrap
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer
from typer._completion_shared import get_completion_script

from alg.cli import app

SHELLS = {"bash": "sipnat", "zsh": "_sipnat", "fish": "sipnat.fish"}
"""What each shell wants the file to be called."""

_NAME = "sipnat"
_STATUS = (
    ("0", "It worked."),
    ("1", "It could not be done; one sentence on standard error says why."),
    ("2", "An option or the configuration is wrong; one sentence says what is allowed."),
    ("70", "The gateway crashed; where it did is on standard error."),
    ("130", "Ctrl-C ended it."),
)
_FILES = (
    ("/run/sipnat/control.sock", "Where a running gateway answers."),
    ("/var/lib/sipnat/state.db", "What outlives a restart."),
)


def manual() -> dict[str, str]:
    """Returns the text of each page by the name of its file, such as "man/sipnat-run.1"."""
    pages = {}
    for path, command in _walk(typer.main.get_command(app), (_NAME,)):
        pages[f"man/{'-'.join(path)}.1"] = "\n".join(_page(path, command)) + "\n"
    return pages


def completion() -> dict[str, str]:
    """Returns the script of each shell by the name of its file, such as "completion/_sipnat"."""
    return {
        f"completion/{name}": get_completion_script(
            prog_name=_NAME, complete_var="_SIPNAT_COMPLETE", shell=shell
        ).strip()
        + "\n"
        for shell, name in SHELLS.items()
    }


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields a command and all below it, with the words that call each."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _walk(below, (*path, name))


def _page(path: tuple[str, ...], command: Any) -> Iterator[str]:
    summary, _, more = (command.help or "").partition("\n\n")
    version = importlib.metadata.version(_NAME)
    yield f'.TH {_quote("-".join(path).upper())} 1 "" "sipnat {version}" "sipnat"'
    yield ".SH NAME"
    yield f"{_text('-'.join(path))} \\- {_text(_first_lower(summary))}"
    yield ".SH SYNOPSIS"
    yield f".B {_text(' '.join(path))}"
    yield from _synopsis(command)
    yield ".SH DESCRIPTION"
    yield _text(summary)
    for paragraph in filter(None, more.split("\n\n")):
        yield ".PP"
        yield _text(paragraph)
    below = [each for each in _walk(command, path) if len(each[0]) == len(path) + 1]
    if below:
        yield ".SH COMMANDS"
        for words, each in below:
            yield from _item(words[-1], (each.help or "").partition("\n\n")[0])
    shown = [each for each in command.params if not each.hidden]
    if shown:
        yield ".SH OPTIONS"
        for parameter in shown:
            yield from _item(_usage(parameter), _explanation(parameter))
    if "exit status" not in more:
        yield ".SH EXIT STATUS"
        for status, meaning in _STATUS:
            yield from _item(status, meaning)
    yield ".SH FILES"
    for name, meaning in _FILES:
        yield from _item(name, meaning)
    related = dict.fromkeys(((_NAME,), path[:-1], *(words for words, _ in below)))
    named = [f".BR {_text('-'.join(words))} (1)" for words in related if words not in ((), path)]
    yield ".SH SEE ALSO"
    yield " ,\n".join(named)


def _synopsis(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if not parameter.hidden:
            usage = _text(_usage(parameter))
            yield usage if parameter.required else f"[{usage}]"
    if getattr(command, "commands", {}):
        yield "COMMAND ..."


def _usage(parameter: Any) -> str:
    """Returns "--type sip|rtp|rtcp" or "FILE..."."""
    name = parameter.opts[0]
    if not name.startswith("-"):
        return str(parameter.metavar or name.upper())
    if parameter.is_flag:
        return "/".join((*parameter.opts, *parameter.secondary_opts))
    choices = getattr(parameter.type_descriptor.annotation, "__args__", ())
    words = [each for each in choices if isinstance(each, str)]
    value = parameter.metavar or "|".join(words) or parameter.name.upper()
    return f"{', '.join(parameter.opts)} {value}"


def _explanation(parameter: Any) -> str:
    default = parameter.default
    is_said = default not in (None, False, "", [], ()) and not callable(default)
    return f"{parameter.help or ''} The default is {default}." if is_said else parameter.help or ""


def _item(term: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield f".B {_text(term)}"
    yield _text(text)


def _text(text: str) -> str:
    """Returns text as roff shows it, in lines: nothing in it is a request or an escape."""
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    lines = textwrap.wrap(escaped, 100, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line[0] in ".'" else line for line in lines)


def _quote(text: str) -> str:
    return f'"{_text(text)}"'


def _first_lower(text: str) -> str:
    """Returns a summary as `whatis` lists it: no capital, unless it is a name, and no full stop."""
    is_name = text[1:2].isupper()
    return (text if is_name else text[:1].lower() + text[1:]).rstrip(".")


def main() -> None:
    """Writes all files anew; those of commands that are gone go too."""
    deploy = Path(str(files("alg") / "deploy"))
    made = manual() | completion()
    for folder in ("man", "completion"):
        (deploy / folder).mkdir(exist_ok=True)
        for old in (deploy / folder).iterdir():
            if f"{folder}/{old.name}" not in made:
                old.unlink()
    for name, text in made.items():
        (deploy / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
