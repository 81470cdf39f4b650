"""The master: start, restart, reload, end, with real forks and real libmilter."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from parts.baredaemon import BareDaemon, alive, children
from parts.base import accepts, open_to_all, wait_until
from parts.milterpeer import MilterPeer

FAST = {"first_wait": 0.1, "longest_wait": 0.4, "healthy": 30.0, "tick": 0.1}

AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


class Load:
    """Clients that open sessions one after the other, on several threads, and note every failure."""

    def __init__(self, daemon: BareDaemon, threads: int = 4) -> None:
        self._daemon = daemon
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self._over = threading.Event()
        self.failures: list[str] = []
        self.sessions = 0
        self.seen: set[str] = set()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def go_on(self, sessions: int = 20) -> None:
        """Wait until so many more sessions were served."""
        goal = self.sessions + sessions
        wait_until(lambda: self.sessions >= goal or self.failures, "more sessions are served")

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                _pid, hostname = self._daemon.ask()
            except (OSError, ConnectionError, IndexError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            else:
                self.seen.add(hostname)
                self.sessions += 1


def refused(daemon: BareDaemon) -> tuple[int, str]:
    """Start a daemon that cannot; its status and what it wrote."""
    command = [str(word) for word in daemon.command()]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=daemon.environment(),
            check=False,
            timeout=30,
        )
    finally:
        daemon.close()
    return done.returncode, done.stdout


def test_one_ready_line_with_what_matters():
    """When all workers serve, one line says where, how many, which version and mode."""
    with BareDaemon(workers=3, mode="observe") as daemon:
        (line,) = daemon.events("ready")
        assert (line["listen"], line["workers"], line["mode"]) == (daemon.listen, 3, "observe")
        assert len(daemon.workers()) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_in_order(number, tmp_path):
    """TERM or Ctrl-C ends all processes with status 0 and takes the socket away."""
    with BareDaemon(f"unix:{tmp_path}/s") as daemon:
        daemon.address = f"{tmp_path}/s"
        daemon.ask()
        family = children(daemon.pid)
        assert daemon.stop(number) == 0
        assert not any(alive(pid) for pid in family)
        assert not (tmp_path / "s").exists()
        assert daemon.events("ended")


def test_killed_worker_is_replaced():
    """A worker killed with -9 is started again at once; the others never stop."""
    with BareDaemon(workers=2, pace=FAST) as daemon:
        before = daemon.workers()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(daemon.workers() - {victim}) == 2, "there are two workers again")
        assert before - {victim} < daemon.workers()
        assert daemon.await_events("process died")["by"] == "SIGKILL"


def test_killed_keeper_is_replaced():
    """The keeper is started again like a worker."""
    with BareDaemon(workers=1, pace=FAST) as daemon:
        (victim,) = daemon.keepers()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: daemon.keepers() - {victim}, "a new keeper runs")


def test_crash_loop_is_spaced_out_and_said_once():
    """Workers that keep dying are started ever more slowly; the log does not fill with it."""
    with BareDaemon(workers=1, hostname="die.test", pace=FAST) as daemon:
        daemon.await_events("process keeps dying, restarts are spaced out", 4)
        lines = daemon.events("process keeps dying, restarts are spaced out")
        assert [line["restart_in"] for line in lines[:4]] == [0.1, 0.2, 0.4, 0.4]
        assert [line["level"] for line in lines[:4]] == ["warning", "debug", "debug", "debug"]
        assert len(daemon.events("process died")) == 1
        assert daemon.stop() == 0


def test_mail_does_not_depend_on_the_keeper():
    """With a keeper that keeps dying the workers serve all the same, from the start on and after a reload."""
    with BareDaemon(workers=1, hostname="keeperless.test", pace=FAST) as daemon:
        assert daemon.ask()[1] == "keeperless.test"
        daemon.await_events("process keeps dying, restarts are spaced out")
        daemon.send_signal(signal.SIGHUP)
        daemon.await_events("reloaded")
        assert daemon.ask()[0] in daemon.workers()


def test_worker_that_cannot_start_ends_the_start():
    """When the first workers do not come up the daemon says why and ends."""
    status, text = refused(BareDaemon(hostname="crash.test"))
    assert status == os.EX_UNAVAILABLE
    assert "start failed" in text
    assert "asked to crash" in text


def test_worker_that_hangs_ends_the_start():
    """Not to get ready in time is a failure too."""
    status, text = refused(BareDaemon(hostname="hang.test", pace={"ready": 0.5}))
    assert status == os.EX_UNAVAILABLE
    assert "not ready after 0.5 s: worker 0, worker 1" in text


@pytest.mark.parametrize("family", ["inet", "unix"])
def test_no_session_fails_while_configurations_change(family, tmp_path):
    """Reload after reload under load: each session gets an answer, and at last the new config gives it."""
    with BareDaemon(f"unix:{tmp_path}/s" if family == "unix" else "", workers=2) as daemon:
        daemon.address = f"{tmp_path}/s" if family == "unix" else daemon.address
        with Load(daemon) as load:
            for turn in range(20):
                load.go_on(5)
                daemon.configure(hostname=f"turn{turn}.test")
                daemon.send_signal(signal.SIGHUP)
                daemon.await_events("reloaded", turn + 1)
            load.go_on()
        assert load.failures == []
        assert len(load.seen) >= 20
        wait_until(lambda: daemon.ask()[1] == "turn19.test", "the last config is at work")
        wait_until(lambda: len(children(daemon.pid)) == 3, "the old generations are gone")
        assert not daemon.events("process died")
        assert not daemon.events("process died while draining")


def test_session_open_over_a_reload_keeps_its_config():
    """A reload does not touch an open session: it ends under the config it began with."""
    with BareDaemon(workers=1, hostname="old.test") as daemon, MilterPeer(daemon.address) as peer:
        peer.connect()
        (old,) = daemon.workers()
        daemon.configure(workers=1, hostname="new.test")
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: daemon.ask()[1] == "new.test", "the new config is at work")
        peer.mail()
        assert peer.rcpt().text.split()[2:4] == [str(old), "old.test"]
        peer.quit()
        wait_until(lambda: not alive(old), "the old worker is gone")


def test_bad_config_changes_nothing():
    """Every error of a new config is logged, and the old workers stay."""
    with BareDaemon(workers=1, hostname="old.test") as daemon:
        before = daemon.workers()
        daemon.configure(workers=1, hostname="new.test", colour="red", mode="maybe")
        daemon.send_signal(signal.SIGHUP)
        daemon.await_events("reload failed, the old configuration stays")
        problems = " ".join(line["problem"] for line in daemon.events("bad configuration"))
        assert "colour" in problems
        assert "mode" in problems
        assert daemon.events("reload failed, the old configuration stays")[-1]["reason"].startswith(
            "2 problems "
        )
        assert daemon.workers() == before
        assert daemon.ask()[1] == "old.test"


@pytest.mark.parametrize("hostname", ["hang.test", "crash.test"])
def test_generation_that_does_not_come_up_is_dropped(hostname):
    """A config that passes all checks but does not work leaves the old workers where they are."""
    with BareDaemon(workers=1, hostname="old.test", pace={"ready": 2.0, "grace": 0.5}) as daemon:
        before = children(daemon.pid)
        with Load(daemon, 2) as load:
            daemon.configure(workers=1, hostname=hostname, drain_timeout="1s")
            daemon.send_signal(signal.SIGHUP)
            daemon.await_events("reload failed, the old configuration stays")
            wait_until(lambda: children(daemon.pid) == before, "the failed generation is gone")
        assert load.failures == []
        assert load.seen == {"old.test"}


def test_reload_during_a_reload_is_not_lost():
    """The last config written wins, however fast the signals come."""
    with BareDaemon(workers=1) as daemon:
        for turn in range(5):
            daemon.configure(workers=1, hostname=f"turn{turn}.test")
            daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: daemon.ask()[1] == "turn4.test", "the last config is at work")


def test_what_needs_a_restart_is_named():
    """A new listening address needs a restart: it is said, and the old one is served on."""
    with BareDaemon(workers=1) as daemon:
        daemon.configure(workers=1, listen="inet:1@127.0.0.1", socket_group="mail", hostname="new.test")
        daemon.send_signal(signal.SIGHUP)
        daemon.await_events("reloaded")
        keys = {line["key"] for line in daemon.events("change needs a restart, the old value stays")}
        assert keys == {"listen", "socket_group"}
        wait_until(lambda: daemon.ask()[1] == "new.test", "the new config is at work")


def test_two_daemons_on_one_unix_socket(tmp_path):
    """The second one says who has the socket and ends; the first one does not notice."""
    with BareDaemon(f"unix:{tmp_path}/s") as first:
        first.address = f"{tmp_path}/s"
        status, text = refused(BareDaemon(f"unix:{tmp_path}/s"))
        assert status == os.EX_UNAVAILABLE
        assert f"(pid {first.pid})" in text
        assert "Traceback" not in text
        assert first.ask()[0] in first.workers()


def test_two_daemons_on_one_port():
    """A port in use is one line and status 69."""
    with BareDaemon() as first:
        status, text = refused(BareDaemon(first.listen))
        assert (status, len(text.splitlines())) == (os.EX_UNAVAILABLE, 1)
        assert "address already in use" in text


def test_socket_of_a_killed_daemon_is_replaced(tmp_path):
    """After kill -9 of everything the next start takes the socket over."""
    with BareDaemon(f"unix:{tmp_path}/s") as daemon:
        family = children(daemon.pid)
        daemon.kill()
        for pid in family:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(alive(pid) for pid in family), "all are gone")
        assert (tmp_path / "s").is_socket()
        daemon.log.unlink()
        daemon.start()
        daemon.address = f"{tmp_path}/s"
        assert daemon.ask()[0] in daemon.workers()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_privileges_are_dropped():
    """Opened as root, served as nobody: no process, the store's server included, keeps root's ids."""
    nobody = pwd.getpwnam("nobody")
    daemon = BareDaemon()
    path = daemon.directory / "run" / "s"
    store = f'[store]\nurl = "embedded:{daemon.directory}/state"\n'
    daemon.configure(listen=f"unix:{path}", user="nobody", extra=store)
    with daemon:
        assert len(daemon.named("server")) == 1
        for pid in {daemon.pid} | children(daemon.pid):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines)
            assert set(status["Uid"].split()) == {str(nobody.pw_uid)}
            assert set(status["Gid"].split()) == {str(nobody.pw_gid)}
            assert "0" not in status["Groups"].split()
        daemon.address = str(path)
        assert daemon.ask()[0] in daemon.workers()
        assert daemon.stop() == 0
        assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_first_start_without_user_then_with(tmp_path):
    """What a start as root has left is the account's at the next one, the data too."""
    open_to_all(tmp_path)
    state = tmp_path / "state"
    extra = f'[store]\nurl = "embedded:{state}"\n'
    for turn, user in enumerate(("", "nobody", "nobody")):
        uid = pwd.getpwnam(user or "root").pw_uid
        daemon = BareDaemon(listen=f"unix:{tmp_path}/run/s", user=user, extra=extra)
        with daemon:
            assert {path.stat().st_uid for path in (state, *state.rglob("*"))} == {uid}
            assert (state / "hybridgrey.pid").read_text().startswith(f"{daemon.pid}\n")
            with redis.Redis(unix_socket_path=f"{state}/store.sock") as store:
                assert store.incr("turns") == turn + 1
            assert daemon.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_folder_of_the_system_is_no_store():
    """`url = "embedded:/var/lib"` ends the start in one line, and nothing there changes owner."""
    before = {path: path.lstat().st_uid for path in Path("/var/lib").iterdir()}
    daemon = BareDaemon(user="nobody", extra='[store]\nurl = "embedded:/var/lib"\n')
    status, text = refused(daemon)
    assert status == os.EX_CONFIG
    assert text.startswith("store: /var/lib: it holds what is not ours")
    assert len(text.splitlines()) == 1
    assert {path: path.lstat().st_uid for path in Path("/var/lib").iterdir()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_config_that_the_user_cannot_read_is_told_at_the_start():
    """The daemon starts, for root has read the file, and warns that a reload will fail."""
    daemon = BareDaemon(user="nobody")
    daemon.config.chmod(0o600)
    with daemon:
        warnings = [line["warning"] for line in daemon.events("configuration")]
        assert f"nobody cannot read {daemon.config}: a reload will fail" in warnings


def test_unknown_user_is_an_error_of_the_config():
    """An unknown user ends the start with status 78, and no socket stays open."""
    daemon = BareDaemon(user="no-such-user")
    status, text = refused(daemon)
    assert status == os.EX_CONFIG
    assert text == f"{daemon.config}: line 4: user: no user 'no-such-user' on this system\n"


def test_embedded_store_is_started_again(tmp_path):
    """The child server of an embedded store comes back when it dies, and ends with the daemon."""
    url = f'[store]\nurl = "embedded:{tmp_path}/state"\n'
    daemon = BareDaemon(workers=1, pace=FAST, extra=url)
    with daemon:
        (server,) = daemon.named("server")
        os.kill(server, signal.SIGKILL)
        daemon.await_events("embedded store is up again")
        assert accepts(f"{tmp_path}/state/store.sock")
        family = children(daemon.pid)
        assert daemon.stop() == 0
        assert not any(alive(pid) for pid in family)


def test_systemd_hears_when_it_is_ready(tmp_path):
    """READY=1 comes after the workers serve, WATCHDOG=1 while they do, STOPPING=1 at the end."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(10)
    daemon = BareDaemon(workers=1)
    daemon.extra_environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    with daemon:
        heard = manager.recv(1000).decode()
        assert heard.startswith("READY=1\n")
        assert manager.recv(1000) == b"WATCHDOG=1"
        assert daemon.stop() == 0
        while heard != "STOPPING=1":
            heard = manager.recv(1000).decode()
    manager.close()


def test_socket_of_systemd_is_used(tmp_path):
    """A listening socket passed by systemd is served, and its file is not ours to remove."""
    path = tmp_path / "s"
    passed = socket.socket(socket.AF_UNIX)
    passed.bind(str(path))
    passed.listen(5)
    daemon = BareDaemon("inet:1@127.0.0.1")
    daemon.address = str(path)
    os.set_inheritable(passed.fileno(), True)
    with daemon.log.open("wb") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", AS_SYSTEMD, str(passed.fileno()), *map(str, daemon.command())],
            stdout=log,
            stderr=log,
            env=daemon.environment(),
            pass_fds=(passed.fileno(),),
        )
    passed.close()
    with daemon_running(daemon):
        assert daemon.ask()[0] in daemon.workers()
        assert daemon.stop() == 0
        assert path.exists()


class daemon_running:  # noqa: N801
    """A daemon started by other means, ended like one of the rig."""

    def __init__(self, daemon: BareDaemon) -> None:
        self._daemon = daemon

    def __enter__(self) -> None:
        self._daemon.await_ready()

    def __exit__(self, *_error: object) -> None:
        self._daemon.close()


def test_nothing_is_lost_while_workers_are_drained_by_turns(tmp_path):
    """A connection made while a worker drains is served by another one, never refused or dropped."""
    with BareDaemon(f"unix:{tmp_path}/s", workers=2, pace={**FAST, "healthy": 0.0}) as daemon:
        daemon.address = f"{tmp_path}/s"
        with Load(daemon) as load:
            for _ in range(20):
                load.go_on()
                victim = min(daemon.workers())
                os.kill(victim, signal.SIGUSR1)
                wait_until(lambda: len(daemon.workers() - {victim}) == 2, "two workers serve")  # noqa: B023
        assert load.failures == []
