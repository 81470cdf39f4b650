"""python -m fuzz [--inputs N] [--seed S] [--engine mutate|atheris] [TARGET…]

Tries N inputs over the targets, shared by their cost, and says how many each had. An input that breaks a
promise is written to tests/fuzz/found/ and told with its traceback; the status is then 1. `atheris` is guided
by coverage, runs one target for N inputs, and must be installed (pip install atheris).
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from itertools import islice
from pathlib import Path

from fuzz import mutate
from fuzz.targets import TARGETS, Target

FOUND = Path(__file__).parent / "found"
MOST = 5  # of one target, then it has shown enough


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


def guided(name: str, count: int) -> None:
    """Let atheris search one target; it ends the process."""
    import atheris  # only here: an extra

    atheris.instrument_all()
    corpus = FOUND.parent / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(TARGETS[name].seeds):
        (corpus / f"seed{number}").write_bytes(data)
    words = [sys.argv[0], f"-runs={count}", "-max_len=2048", f"-artifact_prefix={FOUND}/{name}-", str(corpus)]
    FOUND.mkdir(exist_ok=True)
    atheris.Setup(words, TARGETS[name].run)
    atheris.Fuzz()


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--inputs", type=int, default=100_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    options = parser.parse_args()
    chosen = {name: TARGETS[name] for name in options.targets or TARGETS}
    if options.engine == "atheris":
        guided(next(iter(chosen)), options.inputs)
        return 0
    print(f"seed {options.seed}")
    shares = sum(target.share for target in chosen.values())
    broken = [
        search(name, target, max(1, options.inputs * target.share // shares), options.seed)
        for name, target in chosen.items()
    ]
    return 1 if sum(broken) else 0


if __name__ == "__main__":
    sys.exit(main())
