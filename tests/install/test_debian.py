"""The Debian package in clean machines: a real systemd, or none; from its installation to its purge."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from install.machines import with_systemd
from parts import cleanroot, debianpackage
from parts.base import LOOPBACK, wait_until
from parts.cleanroot import CleanRoot
from parts.milterpeer import MilterPeer

WHY_NOT = cleanroot.missing() or debianpackage.missing()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "fit"),
    pytest.mark.timeout(900),  # the clean machine's packages are fetched, the package is built
]

NEXT = "9.0-1"
ADDRESS = (LOOPBACK, 8893)
CONFIG = "/etc/hybridgrey/hybridgrey.toml"
PATIENCE = 60.0
# What the package brings besides the program, below /usr/share
BROUGHT = (
    "bash-completion/completions/hybridgrey.bash",
    "doc/hybridgrey/contrib/grafana/hybridgrey.json",
    "doc/hybridgrey/contrib/guides/small-host.md",
    "doc/hybridgrey/contrib/prometheus/hybridgrey.rules.yml",
    "doc/hybridgrey/contrib/sendmail/hybridgrey.m4",
    "fish/vendor_completions.d/hybridgrey.fish",
    "man/man5/hybridgrey.toml.5.gz",
    "man/man8/hybridgrey.8.gz",
    "zsh/vendor-completions/_hybridgrey",
)


@pytest.fixture(scope="module")
def package():
    """The package of this tree, and the next version of it."""
    return debianpackage.build(), debianpackage.later(NEXT)


def rcpt(address: str, sender: str, machine: CleanRoot) -> tuple[str, list[str]]:
    """What a client from this address gets at RCPT; when that passes, X-Greylist of its message as well."""

    def session() -> tuple[str, list[str]]:
        with MilterPeer(ADDRESS, timeout=PATIENCE) as peer:
            peer.connect("unknown", address)
            peer.helo("client.test")
            peer.mail(f"<{sender}>")
            reply = peer.rcpt("<b@example.net>")
            headers = peer.content().header("X-Greylist") if reply.passes else []
            peer.quit()
            return reply.text or reply.kind, headers

    return machine.within(session)


def pass_greylist(address: str, sender: str, machine: CleanRoot) -> None:
    """Come back until the mail passes, which the config under test lets happen after a second."""
    assert rcpt(address, sender, machine)[0].startswith("450 4.2.0 Greylisted")
    answers: list[tuple[str, list[str]]] = []

    def passed() -> bool:
        answers.append(rcpt(address, sender, machine))
        return not answers[-1][0].startswith("450")

    wait_until(passed, "the mail passes", PATIENCE)
    assert answers[-1][0] in ("continue", "accept")
    assert answers[-1][1], "the message has no X-Greylist header"


def is_known(address: str, sender: str, machine: CleanRoot) -> bool:
    """Whether a triplet that has passed is still known: no delay, no header."""
    answer, headers = rcpt(address, sender, machine)
    return answer in ("continue", "accept") and not headers


def shorten_delay(machine: CleanRoot) -> None:
    """The admin's change: a conffile that the package may not overwrite."""
    config = machine.path(CONFIG)
    text = config.read_text()
    assert 'delay = "5m"' in text
    config.write_text(text.replace('delay = "5m"', 'delay = "1s"'))


def choose_native(machine: CleanRoot) -> None:
    """Another change of the admin's: the engine that the package does not start with."""
    config = machine.path(CONFIG)
    text = config.read_text()
    assert '\nengine = "auto"' in text
    config.write_text(text.replace('\nengine = "auto"', '\nengine = "native"'))


def install(machine: CleanRoot, package: Path) -> None:
    """Install without a network; the admin's conffiles stay, as unattended upgrades have it."""
    machine.copy(package, "/tmp/package.deb")
    machine.run("dpkg", "--force-confold", "-i", "/tmp/package.deb")


def completes(machine: CleanRoot) -> str:
    """What bash makes of `hybridgrey che` and TAB, with the script of the package."""
    script = "/usr/share/bash-completion/completions/hybridgrey.bash"
    words = "COMP_WORDS=(hybridgrey che); COMP_CWORD=1; _hybridgrey_completion hybridgrey"
    return machine.run("bash", "-c", f'. {script}; {words}; echo "${{COMPREPLY[@]}}"').stdout.strip()


def set_runlevel(machine: CleanRoot) -> None:
    """For invoke-rc.d, where systemd is not running and its program `runlevel` knows of none."""
    machine.run("rm", "/sbin/runlevel")
    machine.path("/sbin/runlevel").write_text("#!/bin/sh\necho N 2\n")
    machine.run("chmod", "755", "/sbin/runlevel")


def failed(machine: CleanRoot) -> str:
    """The units that have failed."""
    return machine.run("systemctl", "--failed", "--plain", "--no-legend").stdout


def status(machine: CleanRoot, pid: str, field: str) -> set[str]:
    """A field of /proc/PID/status."""
    text = machine.run("grep", f"^{field}:", f"/proc/{pid}/status").stdout
    return set(text.split()[1:])


def family(machine: CleanRoot, pid: str) -> list[str]:
    """A process and all below it."""
    below = machine.run("cat", f"/proc/{pid}/task/{pid}/children", check=False).stdout.split()
    return [pid, *(one for child in below for one in family(machine, child))]


def serves(machine: CleanRoot) -> bool:
    """Whether somebody listens for the MTA."""

    def knock() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(ADDRESS) == 0

    return machine.within(knock)


class Load:
    """Sessions one after the other, on a few threads of the machine's network, as long as the block lasts."""

    def __init__(self, machine: CleanRoot, threads: int = 3) -> None:
        self._machine = machine
        self._over = threading.Event()
        self._threads = [threading.Thread(target=machine.within, args=(self._run,)) for _ in range(threads)]
        self.failures: list[str] = []
        self.sessions = 0

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with MilterPeer(ADDRESS, timeout=PATIENCE) as peer:
                    peer.connect("unknown", "192.0.2.9")
                    peer.helo("client.test")
                    peer.mail("<load@example.org>")
                    reply = peer.rcpt("<b@example.net>")
                    peer.quit()
                if reply.kind != "reply" and not reply.passes:
                    self.failures.append(repr(reply))
            except (OSError, ConnectionError) as error:
                self.failures.append(repr(error))
            self.sessions += 1

    def await_more(self, count: int = 30) -> None:
        """Return when so many more sessions have ended."""
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


def show(machine: CleanRoot, unit: str, name: str) -> str:
    """A property of a unit."""
    return machine.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()


def test_contents(package, tmp_path):
    """What the package needs and calls configuration; nothing in it names the place where it was built."""
    first, _ = package
    info = subprocess.run(["dpkg-deb", "-f", first], capture_output=True, text=True, check=True).stdout
    assert "libmilter1.0.1" in info
    assert f"\nMaintainer: {debianpackage.MAINTAINER}\n" in info
    command = ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"]
    python = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    major, minor = map(int, python.split())
    assert f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1})" in info
    tree = tmp_path / "tree"
    subprocess.run(["dpkg-deb", "-R", first, tree], check=True)
    conffiles = (tree / "DEBIAN/conffiles").read_text().split()
    assert sorted(conffiles) == [
        "/etc/hybridgrey/allow_clients",
        "/etc/hybridgrey/hybridgrey.toml",
        "/etc/hybridgrey/pools",
        "/etc/init.d/hybridgrey",
        "/etc/logrotate.d/hybridgrey",
    ]
    foreign = [str(debianpackage.ROOT).encode(), str(first.parent).encode(), b"/tmp/tmp."]
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if any(place in path.read_bytes() for place in foreign)] == []
    assert not list(tree.rglob("__pycache__"))
    for name in BROUGHT:
        assert (tree / "usr/share" / name).exists(), name
    assert list(tree.glob("usr/lib/hybridgrey/lib/*/site-packages/hybridgrey/page/static/vendor/uPlot*.js"))


def test_guides_and_their_links(package, tmp_path):
    """README and guides are in the package, and each link of theirs leads to a file that is there too."""
    subprocess.run(["dpkg-deb", "-x", package[0], tmp_path], check=True)
    doc = tmp_path / "usr/share/doc/hybridgrey"
    guides = [path.name for path in (debianpackage.ROOT / "contrib/guides").glob("*.md")]
    pages = [doc / "README.md", *(doc / "contrib/guides" / name for name in guides)]
    assert len(pages) > 10
    for page in pages:
        for target in re.findall(r"\]\(([^()\s#]+)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), (page.name, target)


def test_a_maintainer_must_be_one(tmp_path):
    """Whoever cannot be written to is refused at once."""
    for wrong in ("nobody", "<a@example.org>", "A <a@example.org> <b@example.org>", "A\n<a@example.org>"):
        command = [debianpackage.ROOT / "contrib/debian/build", tmp_path]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "MAINTAINER": wrong}
        )
        assert (done.returncode, list(tmp_path.iterdir())) == (2, []), wrong
        assert "set MAINTAINER" in done.stderr


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_has_nothing_to_say(package):
    """No error and no warning but those that the package overrides with a reason."""
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", package[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, "")


def test_life_under_systemd(package):
    """It serves, confined; stopped, killed and upgraded it refuses nobody; purged nothing is left."""
    first, second = package
    with with_systemd() as machine:
        before = failed(machine)  # the kernel's modules, say, which are not in such a machine
        install(machine, first)
        assert completes(machine) == "check-config"
        _serves_confined(machine)
        _survives_its_end(machine)
        _is_watched(machine)
        pass_greylist("192.0.2.1", "a@example.org", machine)
        _is_upgraded(machine, second)
        assert is_known("192.0.2.1", "a@example.org", machine)
        _is_removed(machine)
        assert failed(machine) == before


def _serves_confined(machine: CleanRoot) -> None:
    """The unit is on, its processes are the user's, and can do little."""
    for unit in ("hybridgrey.service", "hybridgrey.socket"):
        assert machine.run("systemctl", "is-active", unit).stdout.strip() == "active"
        assert machine.run("systemctl", "is-enabled", unit).stdout.strip() == "enabled"
    pid = show(machine, "hybridgrey.service", "MainPID")
    uid = machine.run("id", "-u", "hybridgrey").stdout.strip()
    processes = family(machine, pid)
    assert len(processes) >= 5, "master, keeper, two workers, store"
    for process in processes:
        assert status(machine, process, "Uid") == {uid} != {"0"}
        assert status(machine, process, "CapBnd") == {"0" * 16}
        assert (status(machine, process, "NoNewPrivs"), status(machine, process, "Seccomp")) == ({"1"}, {"2"})
    assert rcpt("192.0.2.7", "z@example.org", machine)[0].startswith("450 4.2.0 Greylisted")
    lines = machine.run("journalctl", "-u", "hybridgrey.service", "-o", "json").stdout.splitlines()
    facilities = {json.loads(line).get("SYSLOG_FACILITY") for line in lines if '"_PID":"1"' not in line}
    assert facilities == {"2"}, "mail's"
    shorten_delay(machine)
    machine.run("systemctl", "reload", "hybridgrey")
    wait_until(lambda: "reloaded" in _journal(machine), "the reload is told", PATIENCE)
    problems = [line for line in _journal(machine) if line in ("worker failed", "keeper task failed")]
    assert problems == []
    told = machine.run("journalctl", "-u", "hybridgrey.service", "-o", "cat").stdout
    assert ('"engine":"libmilter"' in told, '"engine":"native"' in told) == (True, False)


def _journal(machine: CleanRoot) -> list[str]:
    """The events that the daemon has logged."""
    lines = machine.run("journalctl", "-u", "hybridgrey.service", "-o", "cat").stdout.splitlines()
    return [json.loads(line)["event"] for line in lines if line.startswith("{")]


def _survives_its_end(machine: CleanRoot) -> None:
    """systemd holds the socket: a stop, and a start by the next client, are unseen by clients."""
    with Load(machine) as load:
        load.await_more()
        machine.run("systemctl", "restart", "hybridgrey.service")
        load.await_more()
        machine.run("systemctl", "stop", "hybridgrey.service")
        load.await_more()  # the first of them has started it
        machine.run("systemctl", "kill", "-s", "KILL", "hybridgrey.service")
        wait_until(
            lambda: show(machine, "hybridgrey.service", "SubState") == "running", "it runs again", PATIENCE
        )
        calm = len(load.failures)
        load.await_more()
        assert len(load.failures) == calm
    # Those whose workers were killed lose their sessions, at most one for each thread of the load.
    refused = [one for one in load.failures if "refused" in one.lower()]
    assert (refused, len(load.failures) <= 3) == ([], True), load.failures


def _is_watched(machine: CleanRoot) -> None:
    """A master that hangs is ended and replaced."""
    machine.run("mkdir", "-p", "/run/systemd/system/hybridgrey.service.d")
    machine.path("/run/systemd/system/hybridgrey.service.d/test.conf").write_text(
        "[Service]\nWatchdogSec=2\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "hybridgrey.service")
    pid = show(machine, "hybridgrey.service", "MainPID")
    time.sleep(5)  # a daemon that sent no pings would be gone by now
    assert show(machine, "hybridgrey.service", "MainPID") == pid
    machine.run("sh", "-c", f"kill -STOP {pid}")  # the shell's own

    def replaced() -> bool:
        now = show(machine, "hybridgrey.service", "MainPID")
        return now not in ("0", pid) and show(machine, "hybridgrey.service", "SubState") == "running"

    wait_until(replaced, "the watchdog has the daemon replaced", PATIENCE)
    machine.run("rm", "-r", "/run/systemd/system/hybridgrey.service.d")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "hybridgrey.service")


def _is_upgraded(machine: CleanRoot, package: Path) -> None:
    """The next version takes over under load; the admin's configuration stays."""
    with Load(machine) as load:
        load.await_more()
        install(machine, package)
        assert machine.run("systemctl", "is-active", "hybridgrey.service").stdout.strip() == "active"
        load.await_more()
    assert load.failures == []
    assert NEXT in machine.run("hybridgrey", "--version").stdout
    told = machine.run("journalctl", "-u", "hybridgrey.service", "-o", "cat").stdout
    assert f'"version":"{NEXT}"' in told
    assert 'delay = "1s"' in machine.path(CONFIG).read_text()
    assert f"# as of {NEXT}" in machine.path(f"{CONFIG}.dpkg-dist").read_text()


def _is_removed(machine: CleanRoot) -> None:
    """Removed it is stopped and leaves what is the admin's; purged that goes too."""
    machine.run("dpkg", "--remove", "hybridgrey")
    assert not serves(machine)
    assert machine.path(CONFIG).exists()
    assert list(machine.path("/var/lib/hybridgrey").iterdir()), "triplets are lost by a removal"
    assert not machine.path("/usr/lib/hybridgrey").exists()
    machine.run("dpkg", "--purge", "hybridgrey")
    _nothing_left(machine)


def _nothing_left(machine: CleanRoot) -> None:
    command = ["find", "/etc", "/usr", "/var", "/run", "-xdev", "-iname", "*hybridgrey*"]
    found = machine.run(*command).stdout.split()
    kept = [path for path in found if not path.startswith(("/var/lib/dpkg/", "/run/systemd/"))]
    assert kept == []


def test_life_without_systemd(package):
    """With the init script and native: installed, upgraded with its triplets, removed, purged; never root."""
    first, second = package
    with CleanRoot("bare") as machine:
        set_runlevel(machine)
        install(machine, first)
        shorten_delay(machine)
        choose_native(machine)
        machine.run("service", "hybridgrey", "reload")
        assert _served(machine) == ["libmilter", "native"]
        pass_greylist("192.0.2.1", "a@example.org", machine)
        pid = machine.path("/run/hybridgrey.pid").read_text().strip()
        for process in family(machine, pid):
            assert "0" not in status(machine, process, "Uid")
        install(machine, second)
        assert machine.path("/run/hybridgrey.pid").read_text().strip() != pid
        assert _served(machine) == ["libmilter", "native", "native"]
        assert is_known("192.0.2.1", "a@example.org", machine)
        machine.run("dpkg", "--remove", "hybridgrey")
        assert not serves(machine)
        machine.run("dpkg", "--purge", "hybridgrey")
        _nothing_left(machine)


def _served(machine: CleanRoot) -> list[str]:
    """The engines that the daemon's log names, one for each start and reload."""
    return re.findall(r'"engine":"(\w+)"', machine.path("/var/log/hybridgrey/hybridgrey.log").read_text())
