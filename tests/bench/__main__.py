"""Run benchmarks: `make bench`, `make bench BENCH=direct`, `make bench BENCH="direct --full"`.

Prints tables and writes the same with every single measurement as JSON. As root everything runs in private
network, mount and process namespaces, where nothing leaves the machine and all ends with this process;
without root what needs an MTA is left out.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

from bench import accounts, tables

BENCHMARKS = ("direct", "postfix", "memory", "scale", "parts", "content")
LONG = ("soak",)
INSIDE = "HYBRIDGREY_BENCH_INSIDE"
NETWORKS = ("11.0.0.0/8", "22.0.0.0/8", "33.0.0.0/8")


def main() -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS + LONG)}")
    parser.add_argument("--full", action="store_true", help="the long form")
    parser.add_argument("--json", type=Path, default=Path(".work/bench"), help="folder of the JSON file")
    options = parser.parse_args()
    if unknown := set(options.names) - {*BENCHMARKS, *LONG}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if os.geteuid() == 0 and not os.environ.get(INSIDE):
        return _enter()
    if os.environ.get(INSIDE):
        _prepare()
    names = options.names or [*BENCHMARKS, *(LONG if options.full else ())]
    report = tables.Report(options.json / f"{'-'.join(names) if options.names else 'all'}.json")
    load = _idle_load()
    report.note(
        f"{len(accounts.cores())} CPUs; before the start {load:.2f} of them were busy with other things"
    )
    for name in names:
        begun = time.monotonic()
        importlib.import_module(f"bench.{name}").run(report, full=options.full)
        report.note(f"({name}: {time.monotonic() - begun:.0f} s)")
    report.note(f"all figures: {report.path}")
    return 0


def _idle_load() -> float:
    before = accounts.machine()
    time.sleep(1)
    return accounts.machine() - before


def _enter() -> int:
    """Run this program again inside namespaces of its own."""
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run(["unshare", *flags, "true"], capture_output=True).returncode:
        print("bench: namespaces are not permitted here: no Postfix, and loopback is shared", file=sys.stderr)
        return subprocess.run([sys.executable, "-m", "bench", *sys.argv[1:]], env=_inside("no")).returncode
    command = ["unshare", *flags, sys.executable, "-m", "bench", *sys.argv[1:]]
    return subprocess.run(command, env=_inside("yes")).returncode


def _inside(value: str) -> dict[str, str]:
    return {**os.environ, INSIDE: value}


def _prepare() -> None:
    """Loopback up, the clients' networks local, temporary files in memory."""
    if os.environ[INSIDE] != "yes":
        return
    commands = [["ip", "link", "set", "lo", "up"]]
    commands += [["ip", "route", "add", "local", network, "dev", "lo"] for network in NETWORKS]
    commands += [["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp"]]
    for command in commands:
        subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
