"""`./dev lab`: the lab in containers.

    build              the images
    up                 builds, starts, and returns when every phone is registered
    call PHONE PHONE   makes a call and counts RTP and RTCP at both ends
    call NAME...       makes calls by name; all of them where none is named
    show [WHAT...]     `sipnat show` in the router; calls if nothing else is asked for
    down               takes it away again; the images stay

Exit status 0 when it worked, 1 when it did not, 2 when it was told wrongly.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter

from tests.docker.calls import CALLS, Ends, call
from tests.docker.engine import DockerFailed, why_not
from tests.docker.lab import PHONES, Lab
from tests.lab.namespace import exit_on_signals
from tests.lab.screen import Screen

COLUMNS = ("end", "RTP sent", "RTP got", "RTCP sent", "RTCP got")
_COUNTED = attrgetter("rtp_sent", "rtp_received", "rtcp_sent", "rtcp_received")
TOLD_WRONGLY = 2


def main() -> int:
    """Runs a command of the lab and returns its exit status."""
    commands = {"build": build, "up": up, "call": make_calls, "show": show, "down": down}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__)
        return TOLD_WRONGLY
    command, words = sys.argv[1], sys.argv[2:]
    exit_on_signals()
    screen = Screen()
    if reason := why_not():
        screen.failed(command, reason)
        return 1
    try:
        commands[command](screen, Lab(), words)
    except ValueError as error:
        screen.failed(command, str(error))
        return TOLD_WRONGLY
    except (AssertionError, DockerFailed) as failure:
        screen.failed(" ".join([command, *words]), str(failure))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def build(screen: Screen, lab: Lab, words: Sequence[str]) -> None:
    """Builds the images."""
    take_no_words(words)
    with step(screen, "build the images"):
        lab.build()


def up(screen: Screen, lab: Lab, words: Sequence[str]) -> None:
    """Builds and starts the lab."""
    build(screen, lab, words)
    with step(screen, "start, and wait until every phone is registered"):
        lab.up()


def make_calls(screen: Screen, lab: Lab, words: Sequence[str]) -> None:
    """Makes the call between two phones, or the named ones; raises ValueError for other words."""
    if set(words) <= set(CALLS):
        for name in words or CALLS:
            with step(screen, f"{name}: {CALLS[name].__doc__}"):
                ends = CALLS[name](lab)
            show_ends(screen, ends)
    elif len(words) == len(set(words) & set(PHONES)) == 2:
        with step(screen, " calls ".join(words)):
            ends = call(lab, *words)
        show_ends(screen, ends)
    else:
        raise ValueError(f"two of {', '.join(PHONES)} can call, or any of {', '.join(CALLS)}")


def show(_: Screen, lab: Lab, words: Sequence[str]) -> None:
    """Prints what the router's sipnat shows."""
    print(lab.show(*(words or ["calls"])), end="")


def down(screen: Screen, lab: Lab, words: Sequence[str]) -> None:
    """Takes the lab down."""
    take_no_words(words)
    with step(screen, "take away containers, networks and state"):
        lab.down()


def take_no_words(words: Sequence[str]) -> None:
    """Raises ValueError if there are any."""
    if words:
        raise ValueError(f"there are no options here, such as {words[0]}")


@contextmanager
def step(screen: Screen, what: str) -> Iterator[None]:
    """Says what was done, if it was."""
    started_at = time.monotonic()
    yield
    screen.done(what, time.monotonic() - started_at)


def show_ends(screen: Screen, ends: Ends) -> None:
    """Prints what was counted at each end."""
    rows = [(name, *map(str, _COUNTED(counts))) for name, counts in ends.items()]
    screen.table("Packets counted at each end:", COLUMNS, rows)


if __name__ == "__main__":
    sys.exit(main())
