"""contrib/setup/packages in a clean machine: what it installs is not started, nor will be at a boot."""

from __future__ import annotations

import re

import pytest

from install.machines import with_systemd
from parts import cleanroot
from parts.cleanroot import CleanRoot
from parts.guides import ROOT

pytestmark = [
    pytest.mark.skipif(bool(cleanroot.missing()), reason=cleanroot.missing() or "fit"),
    pytest.mark.timeout(900),  # packages are fetched
]

SCRIPT = ROOT / "contrib/setup/packages"
POLICY = "/usr/sbin/policy-rc.d"
OWN_POLICY = "#!/bin/sh\n# the admin's\nexit 0\n"
# With units, with init scripts, with both, and with aliases
OURS = ("opendkim", "postfix", "rbldnsd", "redis-server", "sqlgrey", "unbound")
UNITS = ("opendkim", "postfix", "rbldnsd", "redis", "redis-server", "sqlgrey", "unbound", "postfix@-")


@pytest.fixture(scope="module")
def machine():
    """One whose admin has a postgrey that runs, and a policy of what may start."""
    with with_systemd() as running:
        running.fetch("postgrey", *OURS)
        running.run("apt-get", "-qq", "install", "--yes", "--no-install-recommends", "postgrey")
        running.path(POLICY).write_text(OWN_POLICY)
        running.path(POLICY).chmod(0o755)
        running.copy(SCRIPT, "/root/packages")
        yield running


def told(machine: CleanRoot, *words: str) -> str:
    """What a command says, whatever its status."""
    return machine.run(*words, check=False).stdout.strip()


def starts(machine: CleanRoot) -> set[str]:
    """All that a boot would start: links of units and of init scripts."""
    wants = machine.run("find", "/etc/systemd/system", "-type", "l").stdout.split()
    scripts = machine.run("sh", "-c", "ls -d /etc/rc[0-6S].d/S* 2>/dev/null || true").stdout.split()
    return {*wants, *scripts}


def services(machine: CleanRoot) -> set[str]:
    """The services that run."""
    listed = machine.run(
        "systemctl", "list-units", "--type=service,socket", "--state=active", "--plain", "--no-legend"
    )
    return {line.split()[0] for line in listed.stdout.splitlines()}


def test_nothing_is_left_to_start(machine):
    """All are installed, none runs or is enabled; the admin's postgrey and policy are as they were."""
    before, running = starts(machine), services(machine)
    assert "postgrey.service" in running
    assert "/etc/rc2.d/S01postgrey" in before
    machine.run("bash", "/root/packages", "--install", *OURS, timeout=300)
    for name in OURS:
        assert told(machine, "dpkg-query", "-W", "-f", "${db:Status-Status}", name) == "installed"
    assert starts(machine) == before
    assert services(machine) == running
    for unit in UNITS:
        assert told(machine, "systemctl", "is-enabled", unit).splitlines()[-1] not in ("enabled", "alias"), (
            unit
        )
    assert told(machine, "systemctl", "is-enabled", "postgrey").splitlines()[-1] == "enabled"
    assert machine.path(POLICY).read_text() == OWN_POLICY


def test_what_is_wanted_is_said_first(machine):
    """What is missing is named before apt is asked; where apt fails nothing changes; the demo has it all."""
    before = starts(machine)
    assert machine.run("bash", "/root/packages", "demo").stdout == "", "with Postfix and rbldnsd it has all"
    done = machine.run("bash", "/root/packages", "run", check=False)
    assert done.returncode != 0, "there is no network to fetch them from"
    first, second = done.stdout.splitlines()[:2]
    names = set(re.search(r"from Debian: (.*)", first)[1].split())
    assert names == {"gcc", "libc6-dev", "libmilter-dev", "python3-dev"}
    assert "none of them is started, now or at the next boot" in second
    assert starts(machine) == before
    assert machine.path(POLICY).read_text() == OWN_POLICY
    assert not machine.path(f"{POLICY}.before").exists()
