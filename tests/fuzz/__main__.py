"""`./dev fuzz [--seconds N] [TARGET...]`: fuzzes, and keeps what is found as a case.

The seconds are shared among the targets. A suspect that is confirmed without instrumentation is
saved as tests/fuzz/cases/TARGET-KIND-HASH.bin, which tests/alg/test_fuzz_cases.py replays for ever.
Exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import CASES
from tests.fuzz.seeds import seeds_of
from tests.fuzz.targets import TARGETS

SAVED = Path(__file__).parent / "cases"


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev fuzz", description="fuzzes what reads bytes")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=" ".join(TARGETS))
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        print(f"fuzz: there is no {unknown[0]}, only {' '.join(TARGETS)}", file=sys.stderr)
        return 2
    engine = "atheris" if importlib.util.find_spec("atheris") else "random mutations"
    total = 0
    for name in names:
        runs, findings = fuzz(name, max(1, options.seconds // len(names)))
        print(f"{name:8} {runs:>9} runs by {engine}, {len(findings)} findings", flush=True)
        for file, text in findings:
            print(f"         {file}: {text}")
        total += len(findings)
    return 1 if total else 0


def fuzz(target: str, seconds: int) -> tuple[int, list[tuple[str, str]]]:
    """Fuzzes one target; returns how many inputs it met, and (file, sentence) of each finding."""
    with tempfile.TemporaryDirectory(prefix="sipnat-fuzz-") as folder:
        seeds, found = Path(folder, "seeds"), Path(folder, "found")
        seeds.mkdir()
        found.mkdir()
        for data in seeds_of(target, CASES if CASES.is_dir() else None):
            (seeds / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        command = [sys.executable, "-m", "tests.fuzz.engine", target, str(seeds), str(found)]
        ended = subprocess.run(
            [*command, str(seconds)], stderr=subprocess.PIPE, text=True, errors="replace"
        )
        counts = re.findall(r"number_of_executed_units: *([0-9]+)", ended.stderr)
        if not counts:
            print(ended.stderr[-2000:], file=sys.stderr)
        findings = [(path, told(target, path)) for path in sorted(found.iterdir())]
        kept = [(save(target, path), text) for path, text in findings if text is not None]
        return int(counts[-1]) if counts else 0, kept


JUDGE = """
import sys
from pathlib import Path
from tests.fuzz.targets import judge, shrink
target, path = sys.argv[1], Path(sys.argv[2])
finding = judge(target, path.read_bytes())
if finding is not None and not finding.startswith("takes"):
    path.write_bytes(shrink(target, path.read_bytes()))
print(finding)
"""


def told(target: str, path: Path) -> str | None:
    """Judges a suspect in a process of its own, for it may never end, and makes it smaller."""
    command = [sys.executable, "-c", JUDGE, target, str(path)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return "does not end"
    if ended.returncode:
        return f"kills the process ({ended.returncode})"
    text = ended.stdout.strip()
    return None if text == "None" else text


def save(target: str, path: Path) -> str:
    """Keeps a finding as a case; returns its name."""
    data = path.read_bytes()
    name = f"{target}-{path.name.split('-')[0].lower()}-{hashlib.sha256(data).hexdigest()[:8]}.bin"
    SAVED.mkdir(exist_ok=True)
    (SAVED / name).write_bytes(data)
    return name


if __name__ == "__main__":
    sys.exit(main())
