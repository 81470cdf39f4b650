"""What all parts have in common: a private folder, a port of their own, a process waited for and ended.

A *part* is a real server in the tests' service. It is a context manager: entered, it runs and answers; left,
its process is gone and its folder too. Parts choose ports below the kernel's ephemeral range, so that no
client socket of this machine can take one between the choice and the bind.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ENGINE = os.environ.get("HYBRIDGREY_ENGINE", "auto")
"""What the daemons of tests run on that do not choose themselves: `auto`, `libmilter` or `native`."""
LOOPBACK = "127.0.0.1"
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


class PartError(AssertionError):
    """A part did not start, or not do what it must; carries the end of its log."""


def wait_until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Return as soon as `condition` is true; PartError naming `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    pause = 0.002
    while not condition():
        if time.monotonic() > end:
            raise PartError(f"not within {timeout:g} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def free_port(host: str = LOOPBACK) -> int:
    """A port on `host` that is free for UDP and TCP at this moment; no other worker of pytest takes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(200):
        port = random.randrange(10000 + _WORKER, 32000, _WORKERS)
        with contextlib.ExitStack() as stack:
            try:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    stack.enter_context(socket.socket(family, kind)).bind((host, port))
            except OSError:
                continue
        return port
    raise PartError(f"no free port on {host}")


def has_ipv6() -> bool:
    """Whether ::1 can be bound here."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def open_to_all(folder: Path) -> None:
    """Let every account reach a test's own folder: pytest makes it, and those above it, for one account."""
    home = Path(tempfile.gettempdir())
    for one in (folder, *folder.parents):
        if one != home and one.is_relative_to(home):
            one.chmod(0o755)


def descriptors(pid: int) -> list[str]:
    """What a process has open, as /proc names it, such as ``socket:[123]``."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found.append(str(link.readlink()))
    return found


def accepts(address: tuple[str, int] | str) -> bool:
    """Whether somebody accepts connections at a (host, port) or a unix path."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


class Part:
    """A folder and at most one process; subclasses write files, give a command and say when it is ready."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"hg-{type(self).__name__.lower()}-"))
        # Servers drop privileges and must still reach what lies below.
        self.directory.chmod(0o755)
        self.log = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.log.exists():
            error.add_note(f"-- {type(self).__name__}: end of log\n{self.log_text()[-3000:]}")
        self.close()

    def command(self) -> Sequence[str | Path]:
        """The server's command line, in the foreground."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether the server answers."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The server's environment; our daemon keeps its state in the part's folder, not in the host's."""
        return {**os.environ, "STATE_DIRECTORY": str(self.directory)}

    def start(self) -> None:
        """Start the process and return when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment(),
                # Some servers signal their whole process group when they end: it must not be pytest's.
                start_new_session=True,
            )
        self.await_ready()

    def await_ready(self) -> None:
        """Wait for the answer; a process that ends meanwhile is an error at once."""

        def settled() -> bool:
            return not self.running or self.ready()

        try:
            wait_until(settled, f"{type(self).__name__} is ready")
        except PartError as error:
            raise PartError(f"{error}\n{self.log_text()[-3000:]}") from None
        if not self.running:
            raise PartError(f"{type(self).__name__} ended at its start\n{self.log_text()[-3000:]}")

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self.process is None:
            raise PartError(f"{type(self).__name__} is not running")
        return self.process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal to the server."""
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20.0) -> int | None:
        """End the process and return its status; SIGKILL when it does not go in time."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # Not from the except: what a test failed of before it is shown beside this.
        raise PartError(f"{type(self).__name__} did not end in {timeout:g} s; killed")

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """End the process and remove the folder."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log_text(self) -> str:
        """What the server has written so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""
