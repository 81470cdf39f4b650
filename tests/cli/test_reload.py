"""``hybridgrey reload`` as a process, on running daemons."""

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from parts.base import wait_until
from parts.commandline import run
from parts.daemon import Daemon

LOCAL = {"name": "local", "clients": ["127.0.0.0/8"], "action": "accept"}
RULES = [LOCAL, {"name": "rest", "action": "greylist"}]


@pytest.fixture
def daemon(server):
    settings = {"store": {"url": server.unix_url}, "rule": RULES, "pid_file": "hg.pid"}
    with Daemon(settings) as part:
        yield part


def test_new_configuration_is_in_effect(daemon):
    """A good configuration is taken; it is said by whom, and the status is 0."""
    daemon.configure({**daemon.settings, "mode": "observe", "workers": 1})
    done = run("reload", "-c", daemon.config)
    assert (done.status, done.error) == (0, "")
    assert done.output == f"reloaded: process {daemon.pid}, 1 worker, mode observe\n"
    assert daemon.events("reloaded")[-1]["mode"] == "observe"


def test_several_reloads(daemon):
    """Each call waits for its own outcome."""
    for count in (1, 2, 3):
        assert run("reload", "-c", daemon.config).status == 0
        assert len(daemon.events("reloaded")) == count


def test_bad_configuration_is_not_taken(daemon):
    """Errors are told before the daemon is, which goes on untouched; the status is 78."""
    daemon.config.write_text(daemon.config.read_text() + "\n[dns.nonsense]\n")
    done = run("reload", "-c", daemon.config)
    assert (done.status, done.output) == (78, "")
    assert "dns.nonsense" in done.error
    assert done.error.endswith("\nnot reloaded: a running daemon keeps the configuration it has\n")
    assert not daemon.events("bad configuration")


def test_daemon_that_refuses(daemon):
    """When the daemon keeps the old configuration the reason is told, and the status is 1."""
    daemon.settings["rule"] = [{"name": "x", "clients": ["file:friends"], "action": "accept"}]
    daemon.configure(daemon.settings, {"friends": "192.0.2.1\n"})
    good = daemon.config.with_name("good.toml")
    good.write_text(daemon.config.read_text())
    daemon.config.write_text("workers = -1\n")
    done = run("reload", "-c", good)
    assert (done.status, done.output) == (1, "")
    assert f"warning: the daemon reads {daemon.config}" in done.error
    assert "reload failed, the old configuration stays" in done.error
    assert "workers" in done.error


def test_what_needs_a_restart(daemon):
    """Keys that only a restart can change are named."""
    daemon.configure({**daemon.settings, "socket_mode": "0600"})
    done = run("reload", "-c", daemon.config)
    assert done.status == 0
    assert (
        done.error
        == f"warning: {daemon.config}: socket_mode: a change needs a restart, the old value stays\n"
    )


@pytest.mark.parametrize("kind", ["embedded", "unix"])
def test_default_places(server, kind):
    """Without `pid_file` the daemon is found beside its embedded store or its unix socket; the file goes."""
    part = Daemon({}, unix=kind == "unix")
    url = f"embedded:{part.directory}/state" if kind == "embedded" else server.unix_url
    part.configure({"rule": RULES, "store": {"url": url}})
    place = part.directory / ("state/hybridgrey.pid" if kind == "embedded" else "milter.sock.pid")
    with part:
        assert place.read_text().splitlines()[0] == str(part.pid)
        assert run("reload", "-c", part.config).status == 0
        part.stop()
        assert not place.exists()


def test_no_daemon(daemon):
    """A pid file left by a killed daemon is stale: nobody is signalled, and the status is 69."""
    place = daemon.directory / "hg.pid"
    family = daemon.processes()
    daemon.kill()
    wait_until(lambda: not any(_lives(pid) for pid in family), "the children are gone")
    text = place.read_text().splitlines()
    place.write_text("\n".join([str(os.getpid()), text[1]]) + "\n")
    done = run("reload", "-c", daemon.config)
    assert (done.status, len(done.error.splitlines())) == (69, 1)
    assert "no daemon is running" in done.error
    place.unlink()
    assert run("reload", "-c", daemon.config).status == 69


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_daemons_with_one_pid_file(daemon, server):
    """The second daemon says that it has none, serves all the same, and the first is still found."""
    settings = {
        "store": {"url": server.unix_url},
        "rule": RULES,
        "pid_file": str(daemon.directory / "hg.pid"),
    }
    with Daemon(settings) as second:
        (line,) = [one for one in second.events() if one["event"].startswith("no pid file")]
        assert "in use by another daemon" in line["reason"]
        done = run("reload", "-c", daemon.config)
        assert (done.status, f"process {daemon.pid}," in done.output) == (0, True)


def test_no_place_for_a_pid_file(tmp_path):
    """Where no pid file can be, a line says what to do."""
    path = tmp_path / "hg.toml"
    path.write_text('[store]\nurl = "redis://127.0.0.1:1"\n')
    done = run("reload", "-c", path)
    assert (done.status, len(done.error.splitlines())) == (69, 1)
    assert "pid" in done.error


class Starting(Daemon):
    """One whose start is not waited for."""

    def await_ready(self) -> None:
        pass


def test_order_during_the_start():
    """A daemon that still waits for its store is not named by the file, and takes SIGHUP after the start."""
    daemon = Starting()
    state = daemon.directory / "state"
    daemon.configure({"store": {"url": f"embedded:{state}"}, "rule": RULES})
    state.mkdir(0o700)
    pid_file = state / "hybridgrey.pid"
    pid_file.write_text('1\n{"pid": 1, "problems": [], "needs_restart": []}\n')
    # As a server that does not answer yet.
    lock = os.open(state / "server.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    daemon.start()
    try:
        wait_until(lambda: pid_file.read_text() == "", "the claim of the pid file")
        done = run("reload", "-c", daemon.config)
        assert (done.status, "starting" in done.error) == (69, True)
        daemon.send_signal(signal.SIGHUP)
        os.close(lock)
        daemon.await_events("reloaded")
    finally:
        daemon.close()


# Locks a file as its first argument's account and names the process of the third in it.
ACCOUNT = """
import fcntl, os, sys
os.setuid(int(sys.argv[2]))
fd = os.open(sys.argv[1], os.O_RDWR)
os.write(fd, sys.argv[3].encode().replace(b"SELF", b"%d" % os.getpid()))
fcntl.lockf(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose signal goes anywhere")
@pytest.mark.parametrize("holder", ["the account's", "root's"])
def test_account_that_names_another_process(tmp_path, holder):
    """Root's signal goes to nobody whom the account could not signal itself, whatever its pid file says."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    pid_file = run_folder / "hg.pid"
    pid_file.touch()
    for path in (run_folder, pid_file):
        os.chown(path, 65534, 65534)
    config = tmp_path / "hg.toml"
    config.write_text(f'pid_file = "{pid_file}"\n[store]\nurl = "redis://127.0.0.1:1"\n')
    victim = subprocess.Popen(["sleep", "60"])  # which SIGHUP would end
    try:
        named = victim.pid if holder == "the account's" else "SELF"
        uid = 65534 if holder == "the account's" else 0
        record = f"{named}\n" + json.dumps({"pid": 0, "config": "\x1b[2J"}).replace("0", str(named), 1) + "\n"
        command = [sys.executable, "-c", ACCOUNT, pid_file, str(uid), record]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as account:
            assert account.stdout.readline() == b"held\n"
            done = run("reload", "-c", config)
            assert account.poll() is None, "it has got root's signal"
            account.stdin.close()
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    if holder == "the account's":
        assert (done.status, "not trusted" in done.error) == (69, True)
    else:
        assert (done.status, "not permitted" in done.error) == (1, True)
    assert "\x1b" not in done.error
