"""Init scripts of systems without systemd, and the rotation of their log file: run, not read.

In a clean machine with the Debian package; OpenRC is Debian's, FreeBSD's rc.subr and daemon(8) are stand-ins.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from parts import cleanroot, debianpackage
from parts.base import LOOPBACK, PartError, wait_until
from parts.cleanroot import CleanRoot
from parts.milterpeer import MilterPeer

CONTRIB = Path(__file__).parents[2] / "contrib"
SCRIPTS = [
    CONTRIB / "sysvinit/hybridgrey",
    CONTRIB / "openrc/hybridgrey",
    CONTRIB / "freebsd/hybridgrey.in",
    CONTRIB / "freebsd/install",
    CONTRIB / "debian/postinst",
    CONTRIB / "debian/prerm",
    CONTRIB / "debian/postrm",
]
WHY_NOT = cleanroot.missing() or debianpackage.missing()
in_machine = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "fit")
pytestmark = pytest.mark.timeout(900)  # the first test builds the package and the machine

ADDRESS = (LOOPBACK, 8893)
CONFIG = "/etc/hybridgrey/hybridgrey.toml"
LOG = "/var/log/hybridgrey/hybridgrey.log"
PIDFILE = "/run/hybridgrey.pid"
PATIENCE = 60.0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: "/".join(path.parts[-2:]))
def test_scripts_are_portable_shell(script):
    """Each parses in sh, and shellcheck, where it is installed, finds nothing in it for a POSIX shell."""
    subprocess.run(["sh", "-n", script], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(
            ["shellcheck", "--shell=sh", script], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "")


def answer(machine: CleanRoot, sender: str = "a@example.org") -> str:
    """What a client gets at RCPT."""

    def session() -> str:
        with MilterPeer(ADDRESS, timeout=PATIENCE) as peer:
            peer.connect("unknown", "192.0.2.1")
            peer.helo()
            peer.mail(f"<{sender}>")
            reply = peer.rcpt()
            peer.quit()
            return reply.code or reply.kind

    return machine.within(session)


def pid(machine: CleanRoot) -> str:
    """The daemon's, as the init script knows it."""
    return machine.path(PIDFILE).read_text().strip()


def owner(machine: CleanRoot, process: str) -> str:
    """The user a process runs as."""
    return machine.run("stat", "-c", "%U", f"/proc/{process}").stdout.strip()


def status(machine: CleanRoot, *command: str) -> int:
    """The exit status of a command."""
    return machine.run(*command, check=False).returncode


def installed(machine: CleanRoot) -> None:
    """The package, its daemon stopped."""
    machine.copy(debianpackage.build(), "/tmp/package.deb")
    machine.run("dpkg", "-i", "/tmp/package.deb")  # no run level, so nothing is started


@in_machine
def test_sysvinit_script():
    """start, status, reload, restart and stop do as LSB says; a bad configuration ends no daemon."""
    with CleanRoot("bare") as machine:
        installed(machine)
        script = "/etc/init.d/hybridgrey"
        assert status(machine, script, "status") == 3
        machine.run(script, "start")
        first = pid(machine)
        assert (status(machine, script, "status"), owner(machine, first)) == (0, "hybridgrey")
        assert machine.run("stat", "-c", "%U:%G %a", LOG).stdout.strip() == "hybridgrey:adm 640"
        assert answer(machine) == "450"
        machine.run(script, "start")
        assert pid(machine) == first, "a second start starts no second daemon"
        machine.run(script, "reload")
        assert '"event":"reloaded"' in machine.path(LOG).read_text()

        good = machine.path(CONFIG).read_text()
        machine.path(CONFIG).write_text('colour = "red"\n')
        for order in ("reload", "restart"):
            refused = machine.run(script, order, check=False)
            assert refused.returncode != 0
            assert "colour" in refused.stdout
        assert (pid(machine), answer(machine)) == (first, "450")
        machine.path(CONFIG).write_text(good)
        machine.run(script, "restart")
        second = pid(machine)
        assert (second != first, answer(machine)) == (True, "450")

        machine.run("sh", "-c", f"kill -KILL {second}")
        wait_until(lambda: status(machine, script, "status") == 1, "dead, with its pid file", PATIENCE)
        machine.run(script, "start")
        machine.run(script, "stop")
        assert status(machine, script, "status") == 3
        assert status(machine, script, "stop") == 0, "stopped already is no failure"
        assert status(machine, script, "nonsense") == 2


@in_machine
def test_sysvinit_start_that_fails():
    """A start that fails says so at once, with its reason, not after the time that a start may take."""
    taken: list[socket.socket] = []
    with CleanRoot("bare") as machine:
        installed(machine)
        machine.within(lambda: taken.append(socket.create_server(ADDRESS)))
        said = machine.run("/etc/init.d/hybridgrey", "start", check=False, timeout=60)
        assert said.returncode == 1
        assert "cannot listen on inet:8893@127.0.0.1: address already in use" in said.stdout
        assert status(machine, "/etc/init.d/hybridgrey", "status") != 0
    taken[0].close()


class Senders:
    """Clients that each leave one line in the log, on a few threads; the senders tell them apart."""

    def __init__(self, machine: CleanRoot, threads: int = 3) -> None:
        self._machine = machine
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]
        self.sent: list[str] = []

    def _run(self, number: int) -> None:
        def work() -> None:
            count = 0
            while not self._over.is_set():
                count += 1
                sender = f"{'abc'[number]}{count}@example.org"
                with MilterPeer(ADDRESS, timeout=PATIENCE) as peer:
                    peer.connect("unknown", "192.0.2.1")
                    peer.helo()
                    peer.mail(f"<{sender}>")
                    peer.rcpt()
                    peer.quit()
                self.sent.append(sender)

        self._machine.within(work)

    def await_more(self, count: int = 50) -> None:
        """Return when so many more have been judged."""
        goal = len(self.sent) + count
        wait_until(lambda: len(self.sent) >= goal, "senders go on", PATIENCE)

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@in_machine
def test_logrotate_loses_no_line():
    """Rotated three times under load by logrotate itself: each verdict is in one of the files, once."""
    with CleanRoot("bare") as machine:
        installed(machine)
        machine.run("/etc/init.d/hybridgrey", "start")
        with Senders(machine) as senders:
            for turn in range(3):
                senders.await_more()
                machine.run("logrotate", "--force", "/etc/logrotate.d/hybridgrey")
                # The new file is in use: what is judged from now on comes to stand there
                wait_until(
                    lambda: machine.path(LOG).stat().st_size > 0, f"log goes on after turn {turn}", PATIENCE
                )
        machine.run("/etc/init.d/hybridgrey", "stop")
        files = sorted(machine.path("/var/log/hybridgrey").iterdir())
        assert [path.name for path in files] == [
            "hybridgrey.log",
            "hybridgrey.log.1",
            "hybridgrey.log.2.gz",
            "hybridgrey.log.3.gz",
        ]
        text = "".join(
            gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
            for path in files
        )
        lines = [json.loads(line) for line in text.splitlines()]
        logged = [one["sender"] for one in lines if one["event"] == "verdict"]
        assert sorted(logged) == sorted(senders.sent)
        assert machine.run("stat", "-c", "%U:%G %a", LOG).stdout.strip() == "hybridgrey:adm 640"


OPENRC_STATES = (
    *("daemons", "exclusive", "failed", "hotplugged", "inactive", "options", "scheduled"),
    *("started", "starting", "stopping", "tmp", "wasinactive"),
)


def unpack_openrc(machine: CleanRoot, folder: Path) -> None:
    """Debian's OpenRC, unpacked only: installed it would take over from the other init system."""
    # One of its libraries is named librc1t64 since Debian 13
    depends = subprocess.run(["apt-cache", "depends", "openrc"], capture_output=True, text=True, check=False)
    libraries = sorted(set(re.findall(r"Depends: (librc1\w*|libeinfo1\w*)$", depends.stdout, re.MULTILINE)))
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "openrc", *libraries]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        raise PartError(f"OpenRC cannot be fetched\n{done.stderr}")
    for package in folder.glob("*.deb"):
        machine.copy(package, "/tmp/part.deb")
        machine.run("dpkg", "-x", "/tmp/part.deb", "/tmp/openrc")
    machine.run("cp", "-a", "/tmp/openrc/.", "/", check=False)
    machine.run("cp", "-a", "/tmp/openrc/lib/.", "/usr/lib/", check=False)
    machine.run("cp", "-a", "/tmp/openrc/sbin/.", "/usr/sbin/", check=False)
    for state in OPENRC_STATES:  # what its boot would make
        machine.run("mkdir", "-p", f"/run/openrc/{state}")
    machine.path("/run/openrc/softlevel").write_text("default\n")


@in_machine
def test_openrc_script(tmp_path):
    """Under Debian's OpenRC: start, status, reload, restart and stop; a bad configuration ends no daemon."""
    with CleanRoot("bare") as machine:
        installed(machine)
        unpack_openrc(machine, tmp_path)
        machine.copy(CONTRIB / "openrc/hybridgrey", "/etc/init.d/hybridgrey")
        machine.run("chmod", "755", "/etc/init.d/hybridgrey")
        machine.path("/etc/conf.d").mkdir(exist_ok=True)
        settings = (CONTRIB / "openrc/hybridgrey.confd").read_text()
        program = 'hybridgrey_command="/usr/bin/hybridgrey"'
        machine.path("/etc/conf.d/hybridgrey").write_text(
            f'{settings}\n{program}\nrc_need="!localmount !net"\n'
        )

        def service(order: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
            return machine.run("/sbin/openrc-run", "/etc/init.d/hybridgrey", order, check=check)

        service("start")
        wait_until(lambda: answer_or_none(machine) == "450", "the daemon answers", PATIENCE)
        first = master(machine)
        assert owner(machine, first) == "hybridgrey"
        assert service("status").returncode == 0
        service("reload")
        assert '"event":"reloaded"' in machine.path(LOG).read_text()
        good = machine.path(CONFIG).read_text()
        machine.path(CONFIG).write_text('colour = "red"\n')
        for order in ("reload", "restart"):
            assert "colour" in service(order, check=False).stdout
        assert (master(machine), answer(machine)) == (first, "450")
        machine.path(CONFIG).write_text(good)
        service("restart")
        wait_until(lambda: answer_or_none(machine) == "450", "the daemon answers", PATIENCE)
        second = master(machine)
        assert second != first
        machine.run("sh", "-c", f"kill -KILL {second}")
        wait_until(
            lambda: master(machine) not in ("", second) and answer_or_none(machine) == "450",
            "started again",
            PATIENCE,
        )
        service("stop")
        assert answer_or_none(machine) is None
        assert service("status", check=False).returncode != 0


def master(machine: CleanRoot) -> str:
    """The daemon's process id as it says itself; "" before it serves."""
    lines = machine.path("/var/lib/hybridgrey/hybridgrey.pid").read_text().splitlines()
    return lines[0] if lines else ""


def answer_or_none(machine: CleanRoot) -> str | None:
    """What a client gets, None while nobody listens."""
    try:
        return answer(machine)
    except ConnectionError:
        return None


# What rc.subr(8) and daemon(8) do for a script like ours, no more: the script's own parts are tried.
RC_SUBR = """\
load_rc_config() { . /etc/rc.conf; }
pid_of() { [ -s "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; }
run_rc_command() {
    eval "enabled=\\$$rcvar"
    [ "$enabled" = YES ] || { echo "$name is not enabled" >&2; return 1; }
    for file in $required_files; do [ -r "$file" ] || { echo "$file is not readable" >&2; return 1; }; done
    case $1 in
    start)
        pid_of && return 1
        [ -z "$start_precmd" ] || $start_precmd || return 1
        $command $command_args ;;
    stop)
        pid_of || return 1
        kill "$(cat "$pidfile")"
        while pid_of; do sleep 0.1; done ;;
    status) pid_of ;;
    restart)
        [ -z "$restart_precmd" ] || $restart_precmd || return 1
        run_rc_command stop
        run_rc_command start ;;
    *) eval "order=\\$${1}_cmd"; $order ;;
    esac
}
"""
DAEMON8 = """\
#!/bin/sh
while getopts fp:u:o: option; do
    case $option in f) ;; p) pidfile=$OPTARG ;; u) user=$OPTARG ;; o) output=$OPTARG ;; *) exit 1 ;; esac
done
shift $((OPTIND - 1))
exec start-stop-daemon --start --background --make-pidfile --pidfile "$pidfile" --chuid "$user" \\
    --output "$output" --startas "$1" -- "$(shift; echo "$1")" $(shift 2; echo "$@")
"""


def test_freebsd_port_paths(tmp_path):
    """`install` puts everything below /usr/local/etc; its sample has FreeBSD's paths."""
    environment = {"STAGEDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    for _ in range(2):  # an upgrade keeps what the admin has made of the samples
        subprocess.run([CONTRIB / "freebsd/install"], env=environment, check=True)
        (tmp_path / "usr/local/etc/hybridgrey/allow_clients").write_text("192.0.2.1\n")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "usr/local/etc/hybridgrey/allow_clients",
        "usr/local/etc/hybridgrey/allow_clients.sample",
        "usr/local/etc/hybridgrey/hybridgrey.toml",
        "usr/local/etc/hybridgrey/hybridgrey.toml.sample",
        "usr/local/etc/hybridgrey/pools",
        "usr/local/etc/hybridgrey/pools.sample",
        "usr/local/etc/newsyslog.conf.d/hybridgrey.conf",
        "usr/local/etc/rc.d/hybridgrey",
    }
    assert (tmp_path / "usr/local/etc/hybridgrey/allow_clients").read_text() == "192.0.2.1\n"
    script = (tmp_path / "usr/local/etc/rc.d/hybridgrey").read_text()
    assert "%%" not in script
    assert "/usr/local/etc/hybridgrey/hybridgrey.toml" in script
    sample = tmp_path / "usr/local/etc/hybridgrey/hybridgrey.toml.sample"
    assert "embedded:/var/db/hybridgrey" in sample.read_text()


@in_machine
def test_freebsd_script():
    """The rc.d script over stand-ins for rc.subr and daemon(8): start, reload, restart, stop."""
    with CleanRoot("bare") as machine:
        installed(machine)
        machine.path("/usr/local/etc/rc.d").mkdir(parents=True)
        machine.path("/etc/rc.subr").write_text(RC_SUBR)
        machine.path("/usr/sbin/daemon").write_text(DAEMON8)
        machine.run("chmod", "755", "/usr/sbin/daemon")
        machine.path("/tmp/contrib/freebsd").mkdir(parents=True)
        machine.path("/tmp/etc").mkdir()
        for name in ("freebsd/install", "freebsd/hybridgrey.in", "freebsd/newsyslog.conf"):
            machine.copy(CONTRIB / name, f"/tmp/contrib/{name}")
        for name in ("hybridgrey.toml", "allow_clients", "pools"):
            machine.copy(CONTRIB.parent / "etc" / name, f"/tmp/etc/{name}")
        machine.run("sh", "/tmp/contrib/freebsd/install")
        script = "/usr/local/etc/rc.d/hybridgrey"
        machine.path("/etc/rc.conf").write_text("hybridgrey_program=/usr/bin/hybridgrey\n")
        assert status(machine, script, "start") != 0, "not enabled"
        with machine.path("/etc/rc.conf").open("a") as settings:
            settings.write("hybridgrey_enable=YES\n")
        machine.run(script, "start")
        wait_until(lambda: answer_or_none(machine) == "450", "the daemon answers", PATIENCE)
        first = pid(machine)  # /var/run is /run
        assert owner(machine, first) == "hybridgrey"
        assert machine.path("/var/db/hybridgrey/hybridgrey.pid").exists()
        assert machine.path("/var/log/hybridgrey").stat().st_uid == 0, "newsyslog works there by name"
        assert machine.path(LOG).stat().st_uid != 0
        machine.run(script, "reload")
        config = machine.path("/usr/local/etc/hybridgrey/hybridgrey.toml")
        good = config.read_text()
        config.write_text('colour = "red"\n')
        for order in ("configtest", "reload", "restart"):
            assert "colour" in machine.run(script, order, check=False).stdout
        assert answer(machine) == "450"
        config.write_text(good)
        machine.run(script, "restart")
        wait_until(lambda: answer_or_none(machine) == "450", "the daemon answers", PATIENCE)
        machine.run(script, "stop")
        assert answer_or_none(machine) is None
