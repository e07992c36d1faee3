"""The demo, as `./dev demo` runs it: over UDP, over TCP, and from a routed IPv6 site."""

from __future__ import annotations

import sys

import pytest

from tests.lab.demo import main

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]


@pytest.mark.parametrize("options", [[], ["--tcp"], ["--ipv6"]])
def test_the_demo_passes(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", *options])
    status = main()
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert printed.splitlines()[-1].startswith("demo passed")
