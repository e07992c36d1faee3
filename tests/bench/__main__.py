"""`./dev bench`: sipnat beside what users would run instead (peers/whole.py); `--help` says more.

`./dev bench NAME...` runs single ones instead: modules of this package, each with a `main()` that
prints its table. `./dev bench trial` plays one load through one box (peers/trial.py).
"""

from __future__ import annotations

import importlib
import sys

from tests.bench.peers import trial, whole

BENCHMARKS = ("rewrite", "table", "loaded", "kernel", "listing", "observe")


def main() -> int:
    names = sys.argv[1:]
    if not names or names[0].startswith("-"):
        return whole.main(names)
    if names[0] == "trial":
        trial.main(names[1:])
        return 0
    for name in names:
        if name not in BENCHMARKS:
            print(f"bench: there is no {name}, only {' '.join(BENCHMARKS)}", file=sys.stderr)
            return 2
    for name in names:
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
