"""The command as a process that is forked from here: as `commandline`, where no server or thread is about.

A process of its own all the same: its streams are files, it ends with a status, and nothing that it does
comes back. What must show how the program starts (imports, closed streams, terminals) starts it anew.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, NoReturn

from hybridgrey.cli import COMMANDS, main

for _place in COMMANDS.values():
    import_module(_place.partition(":")[0])  # here once, not in each of the processes


def run(
    *words: object, input: str = "", cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """The finished command; `input` is its standard input."""
    arguments = [str(word) for word in words]
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as error,
    ):
        given.write(input.encode())
        given.seek(0)
        pid = os.fork()
        if pid == 0:
            become(arguments, (given, output, error), cwd, env)
        _, status = os.waitpid(pid, 0)
        texts = [_text(stream) for stream in (output, error)]
    return CompletedProcess(arguments, os.waitstatus_to_exitcode(status), *texts)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode()


def become(
    arguments: list[str], streams: Sequence[IO[bytes]], cwd: Path | None, env: Mapping[str, str] | None
) -> NoReturn:
    """What a new interpreter would do; never comes back to the test."""
    status = 70  # EX_SOFTWARE, should nobody say better
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
        if cwd is not None:
            os.chdir(cwd)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
            time.tzset()
        sys.argv = ["hybridgrey", *arguments]
        status = _status()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _status() -> int:
    """The status that the command ends with, as the interpreter reads it."""
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
