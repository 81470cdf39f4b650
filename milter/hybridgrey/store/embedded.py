"""The store of a single host: a real Valkey or Redis server that the daemon runs as its child.

The server listens on `store.sock` in the state directory only, and appends each change to a file that is
synced every second. The master calls `start` and hands `url` to its workers, calls `poll` now and then,
`start` again when the server died, and `stop` at its end. Nothing else differs from a shared Redis.

Three files in the directory keep two daemons apart:

    store.sock    where the server answers; a live one is used again, a stale one replaced
    server.lock   held by the server itself (it inherits the descriptor), so exactly as long as it lives. Two
                  servers on one append-only file would destroy it; an absent or hanging socket proves nothing
    master.lock   held by the master that looks after the server: only that one stops it

The server is not tied to its master's life (no PR_SET_PDEATHSIG): after a kill -9 of the master it goes on,
and the next master finds it by its socket, with all data and without loading, and takes it over. The signal
would also come when merely the *thread* that started the server ends, needs code between fork and exec of
a threaded process, and exists on Linux only. For the same reason it has a session of its own: Ctrl-C in
the terminal, or a signal to the process group, must not take the store from workers that still drain.

The server has a limit of memory (`machine`): without one the kernel ends it, or the MTA, when a flood has
filled the machine. At the limit it lets go of what expires first: triplets that wait have two days at most,
those that passed and counts weeks. A server that refuses instead would let all unknown mail in, or none.

The append-only file is kept as plain commands (no RDB preamble), so that the data survive a change of the
binary in either direction: an RDB written by Valkey 9 is unreadable to Redis 7.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hybridgrey import folders
from hybridgrey.store import machine
from hybridgrey.store.binary import EmbeddedError, find_binary

MAX_SOCKET_PATH: Final = 103  # bytes; sun_path has 104 on the BSDs and 108 on Linux, with the final NUL
_ANSWER_TIMEOUT: Final = 1.0  # s; for one PING
_PAUSE: Final = 0.02  # s; between looks at a server that starts

Progress = Callable[[str], None]


class EmbeddedServer:
    """The server of one state directory. Not thread safe: the master's main thread has it."""

    def __init__(
        self,
        directory: Path,
        *,
        binary: Path | None = None,
        start_timeout: float = 15.0,
        load_timeout: float = 300.0,
        progress: Progress | None = None,
        maxmemory: int = 0,
    ) -> None:
        """The server runs as who starts it.

        `start_timeout` s until the first answer, `load_timeout` s more while it says that it loads its data;
        `progress` gets a line when it starts to load, and each few seconds after. `maxmemory` in bytes; 0: by
        the machine.
        """
        self.directory = directory.absolute()
        self.socket_path = self.directory / "store.sock"
        self._binary = binary
        self._start_timeout = start_timeout
        self._load_timeout = load_timeout
        self._progress = progress or _unheard
        self._maxmemory = maxmemory
        self._process: subprocess.Popen[bytes] | None = None
        self._master_lock: int | None = None

    @property
    def url(self) -> str:
        """The store URL of the server."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def pid(self) -> int | None:
        """The process id of our child; None when we use a server that another master started."""
        return self._process.pid if self._process else None

    @property
    def log_path(self) -> Path:
        """What the server wrote since its start."""
        return self.directory / "server.log"

    def start(self) -> Path:
        """Return the socket of a server that answers: a live one, else a new one. Raises EmbeddedError."""
        self._check_path()
        self._make_directory()
        self._own()
        end = time.monotonic() + self._start_timeout
        while True:
            if _answers(self.socket_path):
                self._await_loaded()
                self._limit()
                return self.socket_path
            lock = self._locked("server.lock")
            if lock is not None:
                self._launch(lock)
                return self.socket_path
            # Another master's server starts at this moment, or hangs.
            if time.monotonic() > end:
                raise EmbeddedError(
                    f"{self.directory}: a server holds server.lock but does not answer at its socket; "
                    f"end that process (fuser {self.directory}/server.lock) and start again"
                )
            time.sleep(_PAUSE)

    def _limit(self) -> None:
        """Tell a server that was found: one that the version before started has no limit."""
        for name, value in self._memory().items():
            answer = _ask(self.socket_path, f"CONFIG SET {name} {value}\r\n".encode())
            if not answer.startswith(b"+OK"):
                self._progress(f"{self.directory}: the embedded store goes on without {name} {value}")

    def _memory(self) -> dict[str, str]:
        limit = self._maxmemory or machine.allowance(machine.memory())
        # volatile-ttl takes the best of the keys that it looks at: of ten nearly always one that waits.
        return {
            "maxmemory": str(limit),
            "maxmemory-policy": "volatile-ttl",
            "maxmemory-samples": "10",
        }

    def poll(self) -> int | None:
        """None while the server lives, else its exit status (-1 for one that is not our child)."""
        if self._process is not None:
            return self._process.poll()
        return None if _accepts(self.socket_path) else -1

    def stop(self, timeout: float = 10.0) -> None:
        """End the server in order, its file synced; leave it to another master that looks after it.

        A server that does not end in `timeout` seconds is killed; at most its last second is lost.
        """
        try:
            if not self._own():
                return
            process, self._process = self._process, None
            if process is not None:
                _end(process, timeout)
            else:
                self._shut_down(timeout)
        finally:
            if self._master_lock is not None:
                os.close(self._master_lock)
                self._master_lock = None

    def _own(self) -> bool:
        """Whether we are, or now become, the master that looks after the server."""
        if self._master_lock is None:
            self._master_lock = self._locked("master.lock")
        return self._master_lock is not None

    def _opened(self, path: Path, flags: int = 0) -> int:
        """A descriptor for writing; created closed to others, never through a symbolic link."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)

    def _locked(self, name: str) -> int | None:
        """A descriptor that holds an exclusive lock on the file, or None while another holds it."""
        try:
            descriptor = self._opened(self.directory / name)
        except OSError as error:
            raise EmbeddedError(f"{self.directory / name}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _check_path(self) -> None:
        length = len(os.fsencode(self.socket_path))
        if length > MAX_SOCKET_PATH:
            raise EmbeddedError(
                f"{self.socket_path}: {length} bytes are too many for a unix socket, which takes "
                f"{MAX_SOCKET_PATH}; choose a shorter directory for the embedded store"
            )

    def _make_directory(self) -> None:
        """Create the directory, closed to others; a parent that is missing is made with the usual mode."""
        try:
            folders.made(self.directory, 0o700, parents=True)
            self._check_access()
        except OSError as error:
            raise EmbeddedError(
                f"{self.directory}: cannot be used for the embedded store: {error.strerror or error}"
            ) from None

    def _check_access(self) -> None:
        """Say now what the server could only say as a failed start.

        As root also what would be no failure: whoever may exchange a name there has root's server write to
        any file, for it knows its own by their paths.
        """
        status = self.directory.stat()
        if status.st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "everybody may write there; give it mode 0700")
        if os.geteuid() == 0:
            self._check_roots_own()
        elif not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission to write there")

    def _check_roots_own(self) -> None:
        with folders.opened(self.directory) as folder:
            status, loose = os.fstat(folder.fd), folder.loose
        if not folders.is_root(status.st_uid):
            raise PermissionError(errno.EPERM, "it is not root's; set `user` to the account it belongs to")
        if loose or folders.others_may_write(status):
            raise PermissionError(errno.EPERM, "others than root may exchange it; set `user` to an account")

    def _launch(self, lock: int) -> None:
        """Start a server that holds `lock`, and wait until it serves."""
        try:
            self.socket_path.unlink(missing_ok=True)  # no server lives, so it is stale
            self._process = self._spawn(lock)
        except OSError as error:
            raise EmbeddedError(f"{self.directory}: the embedded store did not start: {error}") from None
        finally:
            os.close(lock)  # from here on the server's descriptor alone keeps it locked
        end = time.monotonic() + self._start_timeout
        while not _answers(self.socket_path):
            status = self._process.poll()
            if status is not None:
                raise self._failed(f"ended at once with status {status}")
            if time.monotonic() > end:
                _end(self._process, 0.0)
                raise self._failed(f"did not answer within {self._start_timeout:g} s")
            time.sleep(_PAUSE)
        self._await_loaded()

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        command = [str(self._binary or find_binary()), *self._arguments()]
        with os.fdopen(self._opened(self.log_path, os.O_TRUNC), "wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                pass_fds=(lock,),
                start_new_session=True,
                umask=0o077,
            )

    def _arguments(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "600",
            "dir": str(self.directory),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",  # a crash may cut the last command off
            "aof-use-rdb-preamble": "no",
            "save": "",
            **self._memory(),
            "loglevel": "warning",
            "logfile": "",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _await_loaded(self) -> None:
        """Wait while the server answers that it is loading; it serves nothing until then."""
        end = time.monotonic() + self._load_timeout
        next_report = 0.0
        while (answer := _answers(self.socket_path)).startswith(b"-LOADING"):
            now = time.monotonic()
            if now > end:
                raise self._failed(f"is still loading its data after {self._load_timeout:g} s")
            if now >= next_report:
                self._progress(f"{self.directory}: the embedded store is loading its data")
                next_report = now + 5.0
            time.sleep(_PAUSE)
        if not answer:
            raise self._failed("stopped answering while it loaded its data")

    def _failed(self, what: str) -> EmbeddedError:
        """The error for a server that did not start, with the end of its log."""
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError as error:
            lines = [f"(no log: {error.strerror})"]
        tail = " | ".join(line.strip() for line in lines if line.strip() and not line.startswith(" "))[-800:]
        return EmbeddedError(
            f"{self.directory}: the embedded store {what}; its log says: {tail or 'nothing'}"
        )

    def _shut_down(self, timeout: float) -> None:
        """End a server that is not our child; gone when server.lock is free."""
        _ask(self.socket_path, b"SHUTDOWN\r\n")
        end = time.monotonic() + timeout
        while _accepts(self.socket_path) and time.monotonic() < end:
            time.sleep(_PAUSE)


def _accepts(path: Path) -> bool:
    """Whether somebody listens at the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_TIMEOUT)
        return probe.connect_ex(str(path)) == 0


def _answers(path: Path) -> bytes:
    """What the server says to PING, `+PONG…` or `-LOADING…`; b"" when it says nothing."""
    return _ask(path, b"PING\r\n")


def _ask(path: Path, command: bytes) -> bytes:
    """The first bytes of the answer to an inline command; b"" when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_TIMEOUT)
        try:
            probe.connect(str(path))
            probe.sendall(command)
            return probe.recv(200)
        except OSError:  # no socket, nobody there, or hanging: all mean no answer
            return b""


def _end(process: subprocess.Popen[bytes], timeout: float) -> None:
    """SIGTERM, at which the server syncs its file; SIGKILL when that takes longer than `timeout`."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unheard(_line: str) -> None:
    """The progress is not wanted."""
