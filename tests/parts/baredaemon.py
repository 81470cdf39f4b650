"""The daemon with a session of a few lines: real master, real workers, a real engine, no judging.

What a worker does at its start follows from `hostname` in the config, so that a reload can change it:
``hang.test`` never gets ready, ``crash.test`` dies, ``die.test`` dies a moment after it was ready,
with ``keeperless.test`` it is the keeper that dies.
RCPT is answered ``450 4.2.0 PID HOSTNAME CPUS``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from hybridgrey import logs
from hybridgrey.cli import bad_config
from hybridgrey.config import load
from hybridgrey.config.load import Config
from hybridgrey.eventloop import Loop
from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.reply import Reply
from hybridgrey.metrics.shared import Shared
from hybridgrey.process import daemon
from hybridgrey.process.generation import Build
from hybridgrey.process.libmilter_pool import Pool
from hybridgrey.process.restarts import Pace
from hybridgrey.protocol.terms import Terms
from hybridgrey.trouble.reporter import Channel
from parts.base import ENGINE, Part, free_port, wait_until
from parts.milterpeer import MilterPeer

Address = tuple[str, int] | str


class BareDaemon(Part):
    """The daemon as a process; `listen` is an address, its config is `directory`/hybridgrey.toml."""

    def __init__(
        self,
        listen: str = "",
        *,
        pace: dict[str, float] | None = None,
        engine: str = ENGINE,
        **keys: object,
    ) -> None:
        super().__init__()
        self.port = free_port()
        self.listen = listen or f"inet:{self.port}@127.0.0.1"
        self.address: Address = ("127.0.0.1", self.port)
        self.config = self.directory / "hybridgrey.toml"
        self.engine = engine
        self.pace = pace or {}
        self.extra_environment: dict[str, str] = {}
        self.configure(**keys)  # type: ignore[arg-type]  # `extra` is a str, the others any

    def configure(self, *, extra: str = "", **keys: object) -> None:
        """Write the config file; keys of the top level by name."""
        own = {"listen": self.listen, "workers": 2, "drain_timeout": "10s"}
        values = {**own, **keys, "engine": self.engine}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        store = "" if "[store]" in extra else '[store]\nurl = "redis://127.0.0.1:1"\n'
        tail = f'[metrics]\nlisten = ""\n[log]\nlevel = "debug"\nformat = "json"\n{store}{extra}'
        self.config.write_text("\n".join(lines) + "\n" + tail)

    def command(self) -> list[str | Path]:
        return [sys.executable, Path(__file__), self.config, json.dumps(self.pace)]

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **self.extra_environment,
        }

    def ready(self) -> bool:
        return bool(self.events("ready"))

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event, oldest first."""
        lines = [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def await_events(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait until an event was logged so often; its last line."""
        wait_until(lambda: len(self.events(name)) >= count, f"{count} times {name!r} in the log")
        return self.events(name)[-1]

    def ask(self) -> tuple[int, str]:
        """One session; the pid of the worker that served it and the hostname in its config."""
        with MilterPeer(self.address) as peer:
            return answer(peer)

    def workers(self) -> set[int]:
        """The pids of the living workers."""
        return self.named("hg-worker")

    def keepers(self) -> set[int]:
        """The pids of the keepers: one, but for a moment during a reload."""
        return self.named("hg-keeper")

    def named(self, word: str) -> set[int]:
        """The pids of the master's living children with a word in their name."""
        return {pid for pid in children(self.pid) if word in title(pid)}


def answer(peer: MilterPeer) -> tuple[int, str]:
    """Ask for one recipient in an open session."""
    peer.connect()
    peer.mail()
    text = peer.rcpt().text.split()
    return int(text[2]), text[3]


def children(pid: int) -> set[int]:
    """The living children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(word) for word in text.split() if alive(int(word))}


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def title(pid: int) -> str:
    """What a process calls itself."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class _Session:
    """Counts open sessions, as the real one does."""

    def __init__(self, settings: Config) -> None:
        self.live = 0
        self.pool = Pool()
        self._settings = settings
        # By name: a type checker would take the folder milter/ of this project for it.
        self._milter: Any = importlib.import_module("milter")

    def register(self) -> None:
        milter = self._milter
        milter.set_connect_callback(self._connect)
        milter.set_envrcpt_callback(self._rcpt)
        milter.set_close_callback(self._close)
        milter.register("bare")

    def tick(self) -> None:
        if self._settings.hostname == "die.test":
            os._exit(3)

    def close(self) -> None:
        """Nothing to write."""

    def _connect(self, ctx: Any, *_arguments: object) -> int:
        self.live += 1
        ctx.setpriv(self)
        return int(self._milter.CONTINUE)

    def _rcpt(self, ctx: Any, *_arguments: object) -> int:
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        ctx.setreply("450", "4.2.0", f"{os.getpid()} {self._settings.hostname or '-'} {cpus}")
        return int(self._milter.TEMPFAIL)

    def _close(self, ctx: Any) -> int:
        if ctx.getpriv() is not None:
            self.live -= 1
            ctx.setpriv(None)
        return int(self._milter.CONTINUE)


class _Native:
    """The same without libmilter: a worker's part, and its sessions."""

    def __init__(self, settings: Config) -> None:
        self.terms = Terms()
        self.sessions = self.calls = self
        self._settings = settings

    def turned(self) -> None:
        """Nothing to tell."""

    def tick(self) -> None:
        if self._settings.hostname == "die.test":
            os._exit(3)

    def broken(self, error: Exception) -> None:
        logs.get().error("broken", exc_info=error)

    def full(self, error: OSError | None) -> None:
        logs.get().warning("full" if error else "not full")

    def close(self, *_session: object) -> None:
        """Nothing to write."""

    def recipient(self, *_arguments: object) -> Steps[Reply]:
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        return Reply("450", "4.2.0", f"{os.getpid()} {self._settings.hostname or '-'} {cpus}")
        yield

    def failed(self, step: str, error: Exception) -> None:
        logs.get().error("failed", step=step, exc_info=error)

    def ignored(self, *_arguments: object) -> None:
        """What a step does not need."""

    call = open = connect = hello = mail = header = end = ignored


class _Parts:
    def __init__(self, settings: Config, before: Shared | None) -> None:
        self.shared = before or Shared.create([], [])
        self._settings = settings

    def native(self, _slot: int, _loop: Loop) -> Any:
        self._misbehave()
        return _Native(self._settings)

    def _misbehave(self) -> None:
        if self._settings.hostname == "hang.test":
            time.sleep(60)
        if self._settings.hostname == "crash.test":
            raise RuntimeError("asked to crash")

    def worker(self, _slot: int) -> _Session:
        self._misbehave()
        session = _Session(self._settings)
        session.register()
        return session

    def keeper(self, ready: Any) -> NoReturn:
        if self._settings.hostname == "keeperless.test":
            raise RuntimeError("asked to crash")
        master = os.getppid()
        ready()
        while os.getppid() == master:
            time.sleep(0.2)
        os._exit(0)


def _assemble(_store: str, _channel: Channel) -> Build:
    return _Parts


def _main(path: Path, pace: dict[str, float]) -> int:
    try:
        settings = load.load(path)
        return daemon.run(settings, lambda: load.load(path), _assemble, Pace(**pace))
    except load.ConfigError as error:
        bad_config(error.problems)
    except daemon.StartError as error:
        print(error, file=sys.stderr)
        return error.status


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), json.loads(sys.argv[2])))
