"""`./dev bench [NAME]`: runs one benchmark, or all of them.

Each benchmark is a module of this package with a `main()` that prints its table.
"""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = ("rewrite", "table", "loaded", "listing", "observe")


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            print(f"bench: there is no {name}, only {' '.join(BENCHMARKS)}", file=sys.stderr)
            return 2
    for name in names:
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
