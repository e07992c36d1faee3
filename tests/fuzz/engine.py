"""The loop of one target in a process of its own: atheris where it is installed, else plain luck.

    python -m tests.fuzz.engine TARGET SEEDS FOUND SECONDS

Inputs that raise or look slow are written to FOUND; whether they are findings is decided elsewhere,
without instrumentation. The process ends by itself after SECONDS.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SUSPECT = 4.0
MAX_LENGTH = 8192
MAX_FOUND = 50
PIECES = (
    *(bytes([octet]) for octet in b'\r\n \t:;,"<>\\\0\xff'),
    b"\r\n",
    *(b"=", b"\r\n ", b"9" * 30, b"10.0.0.20", b"Via: ", b"l: 5\r\n", b"--b\r\n", b"/2 ", b"@"),
    *(b"m=audio 99999 RTP/AVP 0\r\n", b"a=rtcp:", b"\0\0\2", b"\0\0\0", b"\r\n\r\n", b"sip:", b"%"),
)


def mutations(seeds: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Yields mutated and crossed seeds without end."""
    while True:
        data = rng.choice(seeds)
        for _ in range(1 + rng.randrange(6)):
            start = rng.randrange(len(data) + 1)
            end = min(len(data), start + rng.choice((0, 0, 1, 2, 8, 60)))
            piece = rng.choice(PIECES)
            how = rng.randrange(5)
            if how == 0:
                other = rng.choice(seeds)
                cut = rng.randrange(len(other) + 1)
                piece = other[cut : cut + rng.randrange(200)]
            elif how == 1:
                piece = data[start:end] * rng.choice((2, 3, 50))
            elif how == 2:
                piece = rng.randbytes(rng.randrange(1, 4))
            elif how == 3:
                piece *= rng.choice((1, 1, 2, 100))
            data = (data[:start] + piece + data[end:])[:MAX_LENGTH]
        yield data


def watched(target: str, found: Path) -> Callable[[bytes], None]:
    """Returns the target as a function that never raises and writes down what looks wrong."""
    from tests.fuzz.targets import TARGETS, limit_of

    run = TARGETS[target]
    written: set[str] = set()

    def watch(data: bytes) -> None:
        start = time.process_time()
        kind = "slow"
        try:
            run(data)
        except Exception as error:
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            kind = f"{type(error).__name__}-{frame.tb_lineno if frame else 0}"
        else:
            if time.process_time() - start < SUSPECT * limit_of(target, data):
                return
        if sum(name.startswith(kind) for name in written) < 3 and len(written) < MAX_FOUND:
            name = f"{kind}-{hashlib.sha256(data).hexdigest()[:8]}"
            written.add(name)
            (found / name).write_bytes(data)

    return watch


def run_atheris(target: str, seeds: Path, found: Path, seconds: int) -> None:
    """Fuzzes by coverage; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["alg"]):
        import alg.gateway
        import alg.packet
        import alg.sip.stream  # noqa: F401
    watch = watched(target, found)
    options = (
        *(f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", "-timeout=20"),
        *(f"-artifact_prefix={found}/", "-rss_limit_mb=2048", "-print_final_stats=1", "-seed=1"),
    )
    atheris.Setup([sys.argv[0], *options, str(seeds)], watch)
    atheris.Fuzz()


def run_luck(target: str, seeds: Path, found: Path, seconds: int) -> None:
    """Fuzzes without looking at coverage."""
    watch = watched(target, found)
    end = time.monotonic() + seconds
    inputs = mutations([path.read_bytes() for path in sorted(seeds.iterdir())], random.Random())
    count = 0
    while time.monotonic() < end:
        for _ in range(100):
            watch(next(inputs))
        count += 100
    print(f"stat::number_of_executed_units: {count}", file=sys.stderr)


def main() -> int:
    target, seeds, found, seconds = sys.argv[1:]
    try:
        import atheris  # noqa: F401
    except ImportError:
        run_luck(target, Path(seeds), Path(found), int(seconds))
    else:
        run_atheris(target, Path(seeds), Path(found), int(seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
