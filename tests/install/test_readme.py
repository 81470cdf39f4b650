"""README's commands as they stand, in a clean machine with a real systemd and Postfix: up to judged mail."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from install.machines import with_systemd
from parts import cleanroot, debianpackage, distribution, guides
from parts.base import LOOPBACK, wait_until
from parts.cleanroot import CleanRoot
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.smtp import Answer, Client

WHY_NOT = cleanroot.missing() or debianpackage.missing()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "fit"),
    pytest.mark.timeout(900),  # packages are fetched, ours is built
]

PLACE = "/root/hybridgrey"
OPT = "/opt/hybridgrey/bin/hybridgrey"
UNKNOWN, LISTED = "192.0.2.10", "192.0.2.20"
LISTS = ("bl.mailspike.net", "zen.spamhaus.org", "rep.mailspike.net", "list.dnswl.org")
# A negative result, 1, is an answer, too
ASKING = tuple(f"hybridgrey {name}" for name in ("explain", "log", "report", "status", "zones"))
COMMANDS = "".join(block.text for block in guides.blocks("sh") if block.guide == "README.md")
# From here on the filter's answers count
OFF = """sed -i 's/^mode = "observe"/mode = "enforce"/' /etc/hybridgrey/hybridgrey.toml\n"""
SETTING_UP = """\
printf 'postfix postfix/%s\\n' 'main_mailer_type select Internet Site' 'mailname string clean.test' |
    debconf-set-selections
apt-get -qq install --yes --no-install-recommends postfix
useradd --create-home ann
"""


@pytest.fixture
def bare():
    """A machine with nothing but Debian's Python, the tree, and a folder in the place of the Python index."""
    with CleanRoot("bare") as running:
        distribution.tree(running.path(PLACE))
        house = running.path("/root/house")
        shutil.copytree(distribution.house(), house)
        for wheel in house.glob(f"{distribution.COMPILED}-*.whl"):
            wheel.unlink()
        source = distribution.compiled()
        running.copy(source, f"/root/house/{source.name}")
        running.path("/etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /root/house\n")
        # Whoever types the commands says yes
        running.path("/etc/apt/apt.conf.d/99yes").write_text('APT::Get::Assume-Yes "true";\n')
        running.copy(Path("/etc/resolv.conf"), "/etc/resolv.conf")
        running.run("apt-get", "-qq", "update", timeout=cleanroot.MAKING, network=False)
        yield running


def test_with_pip(bare):
    """Each line of the block for pip as it stands, libmilter's engine compiled; then mail is judged."""
    (block,) = [one.text for one in guides.blocks("install") if one.guide == "README.md"]
    *setting_up, last = block.splitlines()
    assert last == f"{OPT} run"
    for line in setting_up:
        bare.run("bash", "-c", f"cd {PLACE} && {line}", timeout=cleanroot.MAKING, network=False)
    bare.run("sh", "-c", f"{last} >/tmp/log 2>&1 &")
    log = bare.path("/tmp/log")
    wait_until(lambda: '"event":"ready"' in log.read_text(), "the daemon is ready", 60)
    assert '"engine":"libmilter"' in log.read_text()
    with bare.within(lambda: MilterPeer((LOOPBACK, 8893), timeout=60)) as peer:
        peer.connect("unknown", UNKNOWN)
        peer.helo()
        peer.mail()
        assert peer.rcpt().code == "450"
    assert "greylist" in bare.run(OPT, "status").stdout


@pytest.fixture
def machine():
    """A mail host, its interfaces and the lists: all that the README takes for granted."""
    with with_systemd() as running:
        running.fetch("postfix")
        for address in (UNKNOWN, LISTED):
            running.within(lambda address=address: _have(address))
        with FakeDns(port=53, make_socket=lambda *kind: running.within(lambda: socket.socket(*kind))) as dns:
            for name in LISTS:
                dns.zone(name, listed={LISTED: "127.0.0.4"} if name == "zen.spamhaus.org" else {})
            running.run("sh", "-c", SETTING_UP)
            running.path(f"{PLACE}/dist").mkdir(parents=True)
            yield running


def _have(address: str) -> None:
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)


def follow(machine: CleanRoot, commands: str) -> None:
    """Run each line; but the package is built outside, where a compiler is."""
    for line in commands.splitlines():
        if line == "make package":
            continue
        done = machine.run("bash", "-c", f"cd {PLACE} && {line}", check=False)
        assert done.returncode in ((0, 1) if line.startswith(ASKING) else (0,)), (line, done.stdout)
        assert "Traceback" not in done.stdout


def attempt(machine: CleanRoot, client: str) -> Answer:
    """What Postfix answers to this client's RCPT TO."""

    def session() -> Answer:
        link = socket.create_connection((LOOPBACK, 25), 60, (client, 0))
        with Client((LOOPBACK, 25), sock=link) as smtp:
            smtp.ehlo("mail.example.org")
            smtp.command("MAIL FROM:<joe@example.org>")
            return smtp.command("RCPT TO:<ann@clean.test>")

    return machine.within(session)


def verdicts(machine: CleanRoot) -> list[tuple[str, bool]]:
    """The log's verdicts: who, and whether it was more than an observation."""
    lines = machine.run("journalctl", "-u", "hybridgrey.service", "-o", "cat").stdout.splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [(one["client"], one["enforced"]) for one in events if one["event"] == "verdict"]


def await_verdicts(machine: CleanRoot, wanted: list[tuple[str, bool]]) -> None:
    """Wait until the journal has them."""
    wait_until(lambda: verdicts(machine) == wanted, f"{wanted} in the log", 60)


def test_from_nothing_to_judged_mail(machine):
    """Installed, observed, told to Postfix, looked at, switched on: all commands work, mail is judged."""
    before, _, after = COMMANDS.partition(OFF)
    machine.copy(debianpackage.build(), f"{PLACE}/dist/{debianpackage.build().name}")
    follow(machine, before)
    for client in (UNKNOWN, LISTED):
        assert attempt(machine, client).code == 250, "it only observes"
    await_verdicts(machine, [(UNKNOWN, False), (LISTED, False)])
    follow(machine, OFF + after)
    listed = attempt(machine, LISTED)
    assert listed.code == 554
    assert "blocked using zen.spamhaus.org" in listed.text
    # The triplet was learnt while it observed, and waits
    greylisted = attempt(machine, UNKNOWN)
    assert greylisted.code == 450
    assert "Greylisted, please try again in" in greylisted.text
    await_verdicts(machine, [(UNKNOWN, False), (LISTED, False), (LISTED, True), (UNKNOWN, True)])
    machine.run("systemctl", "stop", "hybridgrey.socket", "hybridgrey.service")
    assert attempt(machine, UNKNOWN).code == 250, "mail goes on without the filter"
