"""The installed command as a process: piped (`run`) or in a terminal of its own (`in_terminal`).

    done = run("greylist", "list", "-c", path)
    assert (done.status, done.error) == (0, "")

`measured` tells the most memory that the process had.
"""

from __future__ import annotations

import multiprocessing
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hybridgrey.cli import COMMANDS

PROGRAM = Path(sys.executable).with_name("hybridgrey")
_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload([place.partition(":")[0] for place in COMMANDS.values()])
_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Done:
    """A finished process; in a terminal `output` has both streams."""

    status: int
    output: str
    error: str = ""

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    @property
    def plain(self) -> str:
        """The output without colours and cursor movements, and with a plain line end."""
        return _STYLES.sub("", self.output).replace("\r\n", "\n")


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return plain | {"TERM": "xterm"} | dict(given or {})


def run(*words: object, environment: Mapping[str, str] | None = None, text: str = "") -> Done:
    """Run it with pipes; `text` is its standard input.

    It is forked from a process that has it loaded: to load it takes half a second, and hundreds are run. What
    must show how the program starts (imports, closed streams, memory) starts it anew.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("input", "output", "error")]
        streams[0].write_text(text)
        arguments = ([str(word) for word in words], streams, Path.cwd(), _environment(environment))
        process = _LOADED.Process(target=_become, args=arguments)
        process.start()
        process.join()
        texts = [stream.read_bytes().decode(errors="replace") for stream in streams[1:]]
        return Done(process.exitcode or 0, *texts)


def _become(words: list[str], streams: list[Path], folder: Path, environment: Mapping[str, str]) -> None:
    from parts.forked import become  # loads all commands, which only here are loaded already

    files: list[IO[bytes]] = [streams[0].open("rb"), *(stream.open("wb") for stream in streams[1:])]
    become(words, files, folder, environment)


def measured(*words: object, environment: Mapping[str, str] | None = None) -> tuple[Done, int]:
    """Run it started anew; the most memory that it had as well, in bytes."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
        process = subprocess.Popen(
            [PROGRAM, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=error,
            env=_environment(environment),
        )
        memory = 0
        while process.poll() is None:
            memory = max(memory, _peak(process.pid))
            time.sleep(0.005)
        output.seek(0)
        error.seek(0)
        texts = [stream.read().decode(errors="replace") for stream in (output, error)]
        return Done(process.returncode, *texts), memory


def _peak(pid: int) -> int:
    """The most memory of a process so far. Not wait4's figure: that has what pytest had before exec, too."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0
    return int(found[1]) * 1024 if found else 0


def in_terminal(
    *words: object, environment: Mapping[str, str] | None = None, answer: str = "", timeout: float = 60.0
) -> Done:
    """Run it in a terminal of 120 columns; `answer` is typed as soon as a question stands there."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(  # noqa: S606 (a list of words)
                PROGRAM,
                [str(PROGRAM), *map(str, words)],
                _environment({"COLUMNS": "120", **(environment or {})}),
            )
        finally:
            os._exit(127)
    seen = b""
    end = time.monotonic() + timeout
    while time.monotonic() < end and select.select([terminal], [], [], timeout)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: the process has closed the terminal
            break
        if not data:
            break
        seen += data
        if answer and seen.rstrip().endswith(b"[y/N]:"):
            os.write(terminal, answer.encode())
            answer = ""
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return Done(os.waitstatus_to_exitcode(status), seen.decode(errors="replace"))
