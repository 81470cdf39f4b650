"""The systemd units: understood by systemd's own checkers, in step with the daemon, and their socket held.

That they work under a real systemd is shown in test_debian.py.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridgrey import cli
from hybridgrey.config.load import default
from parts import engines
from parts.base import LOOPBACK, Part, free_port, wait_until
from parts.daemon import Daemon
from parts.milterpeer import MilterPeer

CONTRIB = Path(__file__).parents[2] / "contrib"
UNITS = CONTRIB / "systemd"
PROGRAM = "/opt/hybridgrey/bin/hybridgrey"
PATIENCE = 30.0
# Sets the variables that sd_listen_fds(3) looks at in the process that becomes the daemon.
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "hybridgrey.socket"}
os.execv(sys.argv[2], sys.argv[2:])
"""
systemd_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")


def values(unit, section):
    """The settings of a section; of one that is given several times the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNITS / unit)
    return dict(parser[section])


def test_end_is_not_cut_short():
    """systemd waits for an end longer than open sessions may last, and only the master gets SIGTERM."""
    service = values("hybridgrey.service", "Service")
    assert int(service["TimeoutStopSec"]) > default().drain_timeout
    assert service["KillMode"] == "mixed"


def test_folders_are_the_defaults():
    """The folder that the unit makes is that of the default store; bad configurations are not tried again."""
    service = values("hybridgrey.service", "Service")
    url = default().store.url.get_secret_value()
    assert url == f"embedded:/var/lib/{service['StateDirectory']}"
    assert str(cli.EX_CONFIG) in service["RestartPreventExitStatus"].split()


def test_never_root():
    """The service is its own user from the start, without a capability and without a way to one."""
    service = values("hybridgrey.service", "Service")
    assert (service["User"], service["Group"]) == ("hybridgrey", "hybridgrey")
    assert (service["CapabilityBoundingSet"], service["NoNewPrivileges"]) == ("", "yes")


def test_socket_is_that_of_the_configuration():
    """Socket unit and default configuration name one place, so that either of them opens it."""
    listen = default().address
    assert values("hybridgrey.socket", "Socket")["ListenStream"] == f"{listen.host}:{listen.port}"


@systemd_analyze
def test_systemd_understands_the_units(tmp_path):
    """Nothing in the units is unknown to systemd or wrong."""
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "hybridgrey" in line]
    assert (done.returncode, ours) == (0, [])


@systemd_analyze
def test_exposure_stays_low():
    """systemd's own measure of what a daemon in wrong hands could do, 0 to 10, is below 2.0."""
    unit = UNITS / "hybridgrey.service"
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=19", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot work offline")
    assert done.returncode == 0, done.stdout[-300:]


class Activated(Daemon):
    """The daemon with a socket that somebody else holds."""

    def __init__(self, held: socket.socket) -> None:
        super().__init__(
            {"store": {"url": "redis://127.0.0.1:1"}, "rule": [{"name": "all", "action": "accept"}]}
        )
        self.address = held.getsockname()
        self._held = held

    def start(self) -> None:
        os.set_inheritable(self._held.fileno(), True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(self._held.fileno()), *map(str, self.command())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._held.fileno(),),
                env=self.environment(),
                start_new_session=True,
            )
        seen = len(self.events("ready"))
        wait_until(lambda: not self.running or len(self.events("ready")) > seen, "ready", PATIENCE)
        assert self.running, self.log_text()


class Load:
    """Clients that come without a pause, and each failure that they met."""

    def __init__(self, address: tuple[str, int], threads: int = 4) -> None:
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self.failures: list[str] = []
        self.sessions = 0

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with MilterPeer(self._address, timeout=PATIENCE) as peer:
                    peer.connect("mail.example.org", "192.0.2.1")
                    peer.helo("mail.example.org")
                    peer.mail("<a@example.org>")
                    reply = peer.rcpt("<b@example.net>")
                    peer.quit()
                if not reply.passes:
                    self.failures.append(repr(reply))
            except OSError as error:
                self.failures.append(repr(error))
            self.sessions += 1

    def await_more(self, count: int = 20) -> None:
        """Return when so many more sessions are over."""
        goal = self.sessions + count
        wait_until(lambda: self.sessions >= goal, "sessions go on", PATIENCE)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture(params=["inet", "unix"])
def held(request, tmp_path):
    """A listening socket, as systemd would hold it."""
    if request.param == "unix":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s") if len(str(tmp_path)) < 90 else f"/tmp/hg-held-{os.getpid()}")
            sock.listen(4096)
            yield sock
            Path(sock.getsockname()).unlink()
    else:
        with socket.create_server((LOOPBACK, 0), backlog=4096) as sock:
            yield sock


def test_no_connection_is_refused_while_the_daemon_is_away(held):
    """Stopped and started under load, the held socket keeps clients waiting; none is refused or cut.

    Each start is with the other engine.
    """
    with Activated(held) as daemon, Load(daemon.address) as load:
        for _ in range(3):
            load.await_more()
            other = engines.other(daemon.events("ready")[-1]["engine"])
            daemon.configure({**daemon.settings, "engine": other})
            assert daemon.stop(signal.SIGTERM, PATIENCE) == 0
            daemon.start()
            assert daemon.events("ready")[-1]["engine"] == other
        load.await_more()
    assert load.failures == []
    assert load.sessions >= 80


def test_client_of_a_stopped_daemon_is_served_by_the_next(held):
    """A client that came while no daemon ran is the first one's of the next: it has waited in the kernel."""
    answers: list[bool] = []

    def client() -> None:
        with MilterPeer(daemon.address, timeout=PATIENCE) as peer:
            peer.connect()
            peer.helo()
            peer.mail()
            answers.append(peer.rcpt().passes)

    with Activated(held) as daemon:
        assert daemon.stop(signal.SIGTERM, PATIENCE) == 0
        thread = threading.Thread(target=client)
        thread.start()
        thread.join(0.5)
        assert (thread.is_alive(), answers) == (True, []), "nobody is there to answer"
        daemon.start()
        thread.join(PATIENCE)
        assert answers == [True]


@contextlib.contextmanager
def activator(daemon: Daemon, port: int) -> Iterator[Part]:
    """systemd's own program that waits for the first client and then becomes the daemon."""

    class SocketActivate(Part):
        def command(self):
            words = ["systemd-socket-activate", f"--listen={LOOPBACK}:{port}", "--fdname=hybridgrey.socket"]
            given = daemon.environment()
            kept = (f"--setenv={name}={given[name]}" for name in ("PATH", "STATE_DIRECTORY"))
            return [*words, *kept, *daemon.command()]

        def ready(self):
            return "Listening on" in self.log_text()

    with SocketActivate() as part:
        yield part


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate")
def test_first_client_starts_the_daemon():
    """With systemd's own launcher: nothing runs until a client comes, and that one is served."""
    daemon = Daemon({"store": {"url": "redis://127.0.0.1:1"}, "rule": [{"name": "all", "action": "accept"}]})
    port = free_port()
    try:
        with activator(daemon, port) as part:
            assert "hybridgrey" not in Path(f"/proc/{part.pid}/comm").read_text()
            with MilterPeer((LOOPBACK, port), timeout=PATIENCE) as peer:
                peer.connect()
                peer.helo()
                peer.mail()
                assert peer.rcpt().passes
            told = f'"listen":"inet:{port}@{LOOPBACK}"'
            wait_until(lambda: told in part.log_text(), "it says where it listens", PATIENCE)
            assert part.stop() == 0
    finally:
        daemon.close()


def messages(manager: socket.socket) -> Iterator[list[str]]:
    """What systemd is told, a list of assignments at a time."""
    while True:
        yield manager.recv(4096).decode().split("\n")


def test_manager_hears_all_its_life(tmp_path):
    """Type=notify: ready, pings at half of WATCHDOG_USEC, a reload's begin and end, the stop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(b"\0hybridgrey-test-%d" % os.getpid())  # abstract, as a long path would not fit
        manager.settimeout(PATIENCE)
        heard = messages(manager)

        class Watched(Daemon):
            def environment(self):
                notify = f"@hybridgrey-test-{os.getpid()}"
                return {**super().environment(), "NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "400000"}

        settings = {"store": {"url": "redis://127.0.0.1:1"}}
        with Watched(settings) as daemon:
            assert f"MAINPID={daemon.pid}" in next(one for one in heard if "READY=1" in one)
            for _ in range(3):
                assert next(heard) == ["WATCHDOG=1"]
            daemon.send_signal(signal.SIGHUP)
            assert next(one for one in heard if "RELOADING=1" in one)[1].startswith("MONOTONIC_USEC=")
            next(one for one in heard if "READY=1" in one)
            assert next(heard) == ["WATCHDOG=1"]
            assert daemon.stop() == 0
            next(one for one in heard if "STOPPING=1" in one)


def stopped(pid: int) -> bool:
    """Whether a process stands still, after SIGSTOP."""
    return "State:\tT" in Path(f"/proc/{pid}/status").read_text()


def test_hung_daemon_does_not_ping():
    """A master that stands still is silent, so that systemd can see it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"hybridgrey-hung-{os.getpid()}"
        manager.bind(f"\0{name}".encode())
        manager.settimeout(PATIENCE)

        class Watched(Daemon):
            def environment(self):
                return {**super().environment(), "NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "400000"}

        with Watched({"store": {"url": "redis://127.0.0.1:1"}}) as daemon:
            next(one for one in messages(manager) if one == ["WATCHDOG=1"])
            daemon.send_signal(signal.SIGSTOP)
            wait_until(lambda: stopped(daemon.pid), "it stands still")
            manager.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:  # what was sent before
                    manager.recv(4096)
            manager.settimeout(1.5)
            try:
                with pytest.raises(TimeoutError):
                    manager.recv(4096)
            finally:
                daemon.send_signal(signal.SIGCONT)
            manager.settimeout(PATIENCE)
            assert next(messages(manager)) == ["WATCHDOG=1"]


def test_a_manager_that_does_not_read():
    """It holds up nobody: the daemon ends in its time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"hybridgrey-deaf-{os.getpid()}"
        manager.bind(f"\0{name}".encode())

        class Watched(Daemon):
            def environment(self):
                return {**super().environment(), "NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "400000"}

        with (
            Watched({"store": {"url": "redis://127.0.0.1:1"}}),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
        ):
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"WATCHDOG=1", f"\0{name}")


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="no systemd-tmpfiles")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to another user, which needs root")
def test_tmpfiles_makes_the_folders(tmp_path):
    """systemd-tmpfiles makes what the daemon needs, for its user and nobody else, in a root of its own."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nhybridgrey:x:123:456::/:/bin/false\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nadm:x:4:\nhybridgrey:x:456:\n")
    source = CONTRIB / "tmpfiles" / "hybridgrey.conf"
    command = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found = {}
    for path in ("run/hybridgrey", "var/lib/hybridgrey", "var/log/hybridgrey"):
        there = (tmp_path / path).stat()
        found[path] = (there.st_uid, there.st_gid, oct(there.st_mode & 0o7777))
    assert found == {
        "run/hybridgrey": (123, 456, "0o755"),
        "var/lib/hybridgrey": (123, 456, "0o700"),
        "var/log/hybridgrey": (123, 4, "0o2750"),
    }
