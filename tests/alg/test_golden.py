"""Message flows before and after, one file each in golden/, read in review like the code itself.

    # A23 two phones on the same port          what it is about, with its catalogue ids
    == 10.0.0.20:5060 -> 203.0.113.10:5060     who sends this; what stands below is sent
    REGISTER sip:203.0.113.10 SIP/2.0
    ...
    -- rewritten: 203.0.113.1:5060 -> 203.0.113.10:5060     the verdict, the reason where it says
      2- Via: SIP/2.0/UDP 10.0.0.20:5060;branch=z9hG4bK1    more, and the way it goes on; then the
      2+ Via: SIP/2.0/UDP 203.0.113.1:5060;branch=z9hG4bK1  lines that went in (-) and came out (+)
    .. opened sip 10.0.0.20:5060 <-> 203.0.113.1:5060
    == again                                   the last message once more: a retransmission
    == tcp 10.0.0.20:40000 -> ...              the same by a connection, which is mapped before it
    == wait 32                                 time passes, in seconds
    == mappings                                what is mapped now, for whom, how much longer, and
                                               whom signalling lets in
    == settings max_message 1500               at the top: a field of GatewaySettings
    == mode6 nat66                             at the top: what becomes of IPv6 (`Playbook`)

Lines end in CRLF; "\\n" at the end of one stands for a bare LF, "\\" for no line end at all. Inside
a line "\\\\", "\\t" and "\\xNN" are a backslash, a tab and any byte. The numbers of removed lines
count in the message that was sent, those of added lines in the one that left, so that each file
says every byte of both.

What comes from outside is sent to an external endpoint and delivered to where it is mapped, as the
kernel does. A file with a line "# xfail: why" says what should come and does not yet.

To accept a change: python -m tests.alg.test_golden --accept
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from alg.datagram import Side
from alg.gateway_settings import GatewaySettings
from alg.sip.span import apply_edits
from alg.verdict import Outcome, Reason
from nat_table.changes import Change, Closed, Opened
from nat_table.endpoint import Endpoint, Transport, parse_endpoint
from tests.alg.playbook import EXTERNAL, Playbook

GOLDEN = Path(__file__).with_name("golden")
FILES = sorted(GOLDEN.glob("*.txt"))
ENOUGH = 60

_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
_EXTERNAL = re.compile(r"203\.0\.113\.1|2001:db8:e::1|2001:db8:[12]:.*")
_INTERNAL = ("10.0.0.", "fd00:1:", "2001:db8:1:")
_MARKERS = ("== ", "-- ", ".. ", "#")
_DIFF = re.compile(r" *([0-9]+)([-+]) (.*)", re.DOTALL)


@dataclass
class Step:
    """What one `==` line asks for: the notes above it, and the lines of the message below it."""

    what: str
    notes: list[str]
    lines: list[str] = field(default_factory=list)


def encode_lines(lines: Iterable[str]) -> bytes:
    """Encodes the notation as the bytes it stands for."""
    return b"".join(map(_encode_line, lines))


def render_lines(message: bytes) -> list[str]:
    """Renders bytes in the notation, one text a line."""
    return [_render_line(line) for line in _LINE.findall(message)]


def _encode_line(line: str) -> bytes:
    end = b"\r\n"
    pieces: list[bytes] = []
    position = 0
    for match in _ESCAPE.finditer(line):
        pieces.append(line[position : match.start()].encode())
        position = match.end()
        code = match[1]
        if code == "n":
            assert position == len(line), f"\\n inside {line!r}"
            end = b"\n"
        else:
            special = {"t": b"\t", "\\": b"\\"}.get(code)
            pieces.append(bytes.fromhex(code[1:]) if special is None else special)
    rest = line[position:]
    if rest.endswith("\\"):
        rest, end = rest[:-1], b""
    return b"".join((*pieces, rest.encode(), end))


def _render_line(line: bytes) -> str:
    text, end = line, "\\"
    if line.endswith(b"\r\n"):
        text, end = line[:-2], ""
    elif line.endswith(b"\n"):
        text, end = line[:-1], "\\n"
    rendered = "".join(map(_render_char, text.decode("utf-8", "surrogateescape")))
    if rendered.endswith(" ") and not end:
        rendered = rendered[:-1] + "\\x20"
    if rendered.startswith(_MARKERS):
        rendered = f"\\x{ord(rendered[0]):02x}{rendered[1:]}"
    return rendered + end


def _render_char(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char == "\t":
        return "\\t"
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def render_difference(before: bytes, after: bytes) -> list[str]:
    """Renders the lines that changed, each with its number in the message it belongs to."""
    old, new = render_lines(before), render_lines(after)
    lines: list[str] = []
    for tag, i, i_end, j, j_end in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if tag == "equal":
            continue
        removed = [f"{number + 1:3}- {old[number]}" for number in range(i, i_end)]
        added = [f"{number + 1:3}+ {new[number]}" for number in range(j, j_end)]
        if len(removed) == len(added):
            lines += [line for pair in zip(removed, added, strict=True) for line in pair]
        else:
            lines += removed + added
    return lines


def apply_difference(before: bytes, difference: Iterable[str]) -> bytes:
    """Returns the message that left, from the one that was sent and the lines that changed."""
    removed: set[int] = set()
    added: dict[int, str] = {}
    for line in difference:
        match = _DIFF.fullmatch(line)
        assert match is not None, line
        if match[2] == "-":
            removed.add(int(match[1]))
        else:
            added[int(match[1])] = match[3]
    kept = iter(
        [text for number, text in enumerate(render_lines(before), 1) if number not in removed]
    )
    lines: list[str] = []
    while True:
        text = added.pop(len(lines) + 1, None)
        if text is None:
            text = next(kept, None)
        if text is None:
            assert not added, f"no place for {added}"
            return encode_lines(lines)
        lines.append(text)


def parse_steps(text: str) -> list[Step]:
    """Reads the `==` lines of a file, with what is to be sent; what came of it is left out."""
    steps: list[Step] = []
    notes: list[str] = []
    is_sent = False
    for line in text.split("\n")[:-1]:
        if line.startswith("== "):
            steps.append(Step(line.removeprefix("== "), notes))
            notes, is_sent = [], " -> " in line
        elif line.startswith("#"):
            notes.append(line)
            is_sent = False
        elif line.startswith(("-- ", ".. ")):
            is_sent = False
        elif is_sent:
            steps[-1].lines.append(line)
    return steps


class Flow:
    """Plays the steps of one file against a gateway and writes down what comes of them."""

    def __init__(self, steps: list[Step]) -> None:
        modes = [step.what.split()[1] for step in steps if step.what.startswith("mode6 ")]
        self.play = Playbook(settings=_settings(steps), mode6="".join(modes) or "off")
        self._sent: tuple[Transport, Endpoint, Endpoint, bytes] | None = None
        self._came: bytes = b""
        self._steps = steps

    def transcript(self) -> str:
        """Returns the whole file as it should read."""
        lines: list[str] = []
        for number, step in enumerate(self._steps):
            self.before(number)
            if number:
                lines.append("")
            lines += step.notes
            lines.append(f"== {step.what}")
            lines += render_lines(encode_lines(step.lines))
            lines += self._happen(step)
        return "".join(f"{line}\n" for line in lines)

    def before(self, number: int) -> None:
        """Does nothing more before a step."""

    def _happen(self, step: Step) -> Iterator[str]:
        words = step.what.split()
        seen = len(self.play.changes)
        if words[0] == "wait":
            self.play.wait(float(words[1]))
        elif words[0] == "mappings":
            rows = sorted(self.play.rows(), key=lambda row: str(row["internal"]))
            for row in rows:
                transport = Transport[str(row["transport"]).upper()]
                label = _label(str(row["kind"]), transport)
                mapping = f"{label} {row['internal']} <-> {row['external']}"
                named = self.play.remotes(str(row["internal"]), transport)
                remotes = "".join(f" {each}" for each in named)
                yield f".. {mapping} {row['state']}, {float(str(row['expires_in'])):.0f} s{remotes}"
            if not rows:
                yield ".. none"
        elif words[0] == "again":
            assert self._sent is not None
            before = self._came
            yield from self._send(*self._sent)
            assert self._came == before, "a retransmission left differently"
        elif words[0] not in ("settings", "mode6"):
            *by, source, arrow, destination = words
            assert arrow == "->" and by in ([], ["tcp"])
            self._sent = (
                Transport.TCP if by else Transport.UDP,
                parse_endpoint(source),
                parse_endpoint(destination),
                encode_lines(step.lines),
            )
            yield from self._send(*self._sent)
        yield from _render_changes(self.play.changes[seen:])

    def _send(
        self, transport: Transport, source: Endpoint, destination: Endpoint, payload: bytes
    ) -> Iterator[str]:
        play = self.play
        is_connected = transport is Transport.UDP or _side(source) is not Side.INTERNAL
        if not is_connected and not play.binding(str(source), transport):
            play.connect(str(source), destination)
        if _EXTERNAL.fullmatch(destination.address):
            binding = play.table.look_up_external(transport, destination)
            if binding is None:
                yield f"-- not delivered: nothing is mapped at {destination}"
                return
            destination = binding.internal
        sides = _side(source), _side(destination)
        outcome = play.send(payload, source, destination, *sides, transport=transport)
        _check(payload, outcome)
        self._came = outcome.payload
        difference = render_difference(payload, outcome.payload)
        assert apply_difference(payload, difference) == outcome.payload
        sender = self._sender(transport, source)
        yield f"-- {_render_verdict(outcome)}: {sender} -> {destination}"
        yield from difference

    def _sender(self, transport: Transport, source: Endpoint) -> str:
        """Returns whom the receiver sees; a source without a mapping gets some port."""
        if _side(source) is not Side.INTERNAL:
            return str(source)
        binding = self.play.table.look_up_internal(transport, source)
        return f"{EXTERNAL}:(any)" if binding is None else str(binding.external)


def _settings(steps: list[Step]) -> GatewaySettings:
    settings = GatewaySettings((EXTERNAL,))
    for step in steps:
        words = step.what.split()
        if words[0] != "settings":
            continue
        name, values = words[1], words[2:]
        if name == "media_hosts":
            settings = replace(settings, media_hosts=frozenset(values))
        elif name == "hands_off":
            settings = replace(settings, hands_off=tuple(map(IPv4Network, values)))
        elif name == "has_tcp_media":
            settings = replace(settings, has_tcp_media=True)
        else:
            assert name == "max_message"
            settings = replace(settings, max_message=int(values[0]))
    return settings


def _side(endpoint: Endpoint) -> Side:
    if endpoint.address.startswith(_INTERNAL):
        return Side.INTERNAL
    return Side.OTHER if endpoint.address.startswith("192.168.") else Side.EXTERNAL


def _check(payload: bytes, outcome: Outcome) -> None:
    """Proves what holds for every message there is."""
    assert outcome.reason is not Reason.ERROR, outcome.detail
    assert apply_edits(payload, outcome.edits) == outcome.payload
    assert bool(outcome.edits) == (payload != outcome.payload)


def _render_verdict(outcome: Outcome) -> str:
    verdict, reason = outcome.verdict.value, outcome.reason.value
    if outcome.detail:
        return f"{verdict} ({reason}, {outcome.detail})"
    return verdict if verdict == reason else f"{verdict} ({reason})"


def _render_changes(changes: Iterable[Change]) -> Iterator[str]:
    """Renders what was opened, in order, and what was closed, by internal endpoint."""
    opened = [change.binding for change in changes if isinstance(change, Opened)]
    closed = [change.binding for change in changes if isinstance(change, Closed)]
    closed.sort(key=lambda binding: binding.internal)
    for what, bindings in (("opened", opened), ("closed", closed)):
        for binding in bindings:
            label = _label(binding.kind.value, binding.transport)
            yield f".. {what} {label} {binding.internal} <-> {binding.external}"


def _label(kind: str, transport: Transport) -> str:
    return kind if transport is Transport.UDP else f"{kind}/{transport.label}"


def _parameter(path: Path) -> object:
    why = re.search(r"^# xfail: (.*)$", path.read_text(), re.MULTILINE)
    marks = [pytest.mark.xfail(strict=True, raises=AssertionError, reason=why[1])] if why else []
    return pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.parametrize("path", [_parameter(path) for path in FILES])
def test_flow(path: Path) -> None:
    """To accept a change: python -m tests.alg.test_golden --accept"""
    text = path.read_text()
    assert Flow(parse_steps(text)).transcript() == text


def test_there_are_enough_and_their_names_say_their_ids() -> None:
    assert len(FILES) >= ENOUGH
    for path in FILES:
        title = path.read_text().partition("\n")[0]
        ids = re.findall(r"\bA[0-9]{2}\b", title)
        assert title.startswith("# A") and ids, path.name
        assert re.findall(r"A[0-9]{2}(?=-)", path.stem) == ids, path.name


@pytest.mark.parametrize(
    "message", [b"", b"a\r\n\\n\n \r\n-- \t\r\r\n\0\xff \xc3\xa9", b"\n\r\nx\\"]
)
def test_the_notation_says_every_byte(message: bytes) -> None:
    lines = render_lines(message)
    assert encode_lines(lines) == message
    assert not any(line.startswith(_MARKERS) or line.endswith(" ") for line in lines)
    assert apply_difference(b"x\n", render_difference(b"x\n", message)) == message


def accept() -> None:
    """Writes what comes of every flow, except where the file knows better than the gateway."""
    for path in FILES:
        text = path.read_text()
        if "\n# xfail: " not in text:
            path.write_text(Flow(parse_steps(text)).transcript())


if __name__ == "__main__":
    if sys.argv[1:] != ["--accept"]:
        sys.exit("usage: python -m tests.alg.test_golden --accept")
    accept()
