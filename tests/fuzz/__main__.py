"""python -m fuzz [--inputs N] [--seed S] [TARGET…]
python -m fuzz --engine atheris [--seconds N] [TARGET…]

Tries N inputs over the targets, shared by their cost, and says how many each had. An input that breaks a
promise is written to tests/fuzz/found/ and told with its traceback; the status is then 1.

`atheris` is guided by coverage: the targets one after the other, N seconds all together, each in a process of
its own until it breaks a promise. What led to new code is kept in tests/fuzz/corpus/ for the next time. It is
the extra `fuzz`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import FunctionType

from fuzz import mutate
from fuzz.targets import TARGETS, Target

FOUND = Path(__file__).parent / "found"
MOST = 5  # of one target, then it has shown enough
LONGEST = 2048  # bytes of an input for atheris


def search(name: str, target: Target, count: int, seed: int) -> int:
    """Try `count` inputs; the number of broken promises."""
    begun = time.monotonic()
    broken: set[str] = set()
    for data in islice(mutate.inputs(target.seeds, target.words, random.Random(f"{name} {seed}")), count):
        try:
            target.run(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} {place.filename}:{place.lineno}"
            if kind not in broken:
                broken.add(kind)
                keep(name, data)
                traceback.print_exc()
            if len(broken) >= MOST:
                break
    print(f"{name}: {count} inputs, {len(broken)} broken, {time.monotonic() - begun:.0f} s", flush=True)
    return len(broken)


def keep(name: str, data: bytes) -> None:
    """Write an input down, for a test to keep."""
    FOUND.mkdir(exist_ok=True)
    path = FOUND / f"{name}-{hashlib.sha1(data, usedforsecurity=False).hexdigest()[:8]}"
    path.write_bytes(data)
    print(f"kept as {path}", file=sys.stderr)


def guided(name: str, seconds: int) -> None:
    """Let atheris search one target; it ends the process."""
    import atheris  # only here: an extra

    # Ours only: all 14,000 functions of the libraries would take a minute, and lead astray.
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and str(one.__module__).startswith("hybridgrey"):
            atheris.instrument_func(one)
    target = TARGETS[name]
    corpus = FOUND.parent / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(exist_ok=True)
    for number, data in enumerate(target.seeds):
        (corpus / f"seed{number}").write_bytes(data)
    # libFuzzer's own notation: every byte that is not plain is written in hex.
    words = corpus.with_name(f"{name}.words")
    hexed = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    words.write_text("".join(f'"{word}"\n' for word in hexed))
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-artifact_prefix={FOUND}/{name}-"]
    options += [f"-dict={words}"] if target.words else []
    options += ["-timeout=20", "-rss_limit_mb=3000", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.run)
    atheris.Fuzz()


def each_guided(names: Sequence[str], seconds: int) -> int:
    """Search targets one after the other; how many broke a promise."""
    part = str(max(1, seconds // len(names)))
    broken = 0
    for name in names:
        command = [sys.executable, "-m", "fuzz", "--engine", "atheris", "--seconds", part, "--alone", name]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        broken += bool(done.returncode)
        print(f"{name}: {tried[1] if tried else '?'} inputs, {part} s, status {done.returncode}", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr[-6000:], file=sys.stderr)
    return broken


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--inputs", type=int, default=100_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    parser.add_argument("--seconds", type=int, default=600, help="over all targets, with atheris")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = {name: TARGETS[name] for name in options.targets or TARGETS}
    if options.alone:
        guided(next(iter(chosen)), options.seconds)
    if options.engine == "atheris":
        return 1 if each_guided(list(chosen), options.seconds) else 0
    print(f"seed {options.seed}")
    shares = sum(target.share for target in chosen.values())
    broken = [
        search(name, target, max(1, options.inputs * target.share // shares), options.seed)
        for name, target in chosen.items()
    ]
    return 1 if sum(broken) else 0


if __name__ == "__main__":
    sys.exit(main())
