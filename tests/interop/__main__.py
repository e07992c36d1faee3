"""`./dev interop`: plays the matrix, or a part of it, and prints it.

The exit status is 1 where a cell fails through the gateway and works without any NAT.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.interop.matrix import WORKERS, all_cells, mixed_cells, play_all, quick_cells
from tests.interop.report import as_markdown, as_text, faults
from tests.interop.scenarios import SCENARIOS
from tests.interop.stage import GATEWAYS, KINDS, SERVERS, TRANSPORTS
from tests.lab.namespace import exit_on_signals

CHOICES = {
    "phone": tuple(KINDS),
    "server": SERVERS,
    "transport": TRANSPORTS,
    "scenario": tuple(SCENARIOS),
    "gateway": GATEWAYS,
}


def main() -> int:
    """Plays what was asked for."""
    parser = argparse.ArgumentParser(prog="./dev interop", description=__doc__)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--quick", action="store_true", help="the part that ./dev test plays")
    part.add_argument("--mixed", action="store_true", help="calls between phones of two kinds")
    for option, choices in CHOICES.items():
        parser.add_argument(f"--{option}", action="append", choices=choices, help="may be repeated")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"at a time ({WORKERS})")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs and captures here")
    parser.add_argument("--markdown", action="store_true", help="print the matrix as Markdown")
    parser.add_argument("--verbose", action="store_true", help="print why a cell fails at length")
    options = parser.parse_args()
    exit_on_signals()
    choose = quick_cells if options.quick else mixed_cells if options.mixed else all_cells
    cells = [
        cell
        for cell in choose()
        if all(getattr(cell, name) in (getattr(options, name) or CHOICES[name]) for name in CHOICES)
    ]
    results = {}
    for number, result in enumerate(play_all(cells, options.workers, options.keep), 1):
        results[result.cell] = result
        why = result.why if options.verbose else result.why.partition("\n")[0]
        line = f"[{number}/{len(cells)}] {result.seconds:3.0f} s  {result.cell}: {result.state}"
        print(f"{line}: {why}" if why else line, file=sys.stderr, flush=True)
    found = [results[cell] for cell in cells]
    print(as_markdown(found) if options.markdown else as_text(found))
    for result in faults(found):
        print(f"our fault: {result.cell}: {result.why.partition(chr(10))[0]}", file=sys.stderr)
    return 1 if faults(found) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
