"""`make lab` as a newcomer has it: a terminal with a prompt, and the command `lab` in another."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from mta.conftest import require
from parts import mxrow
from parts.base import wait_until

pytestmark = pytest.mark.mta
LAB = Path(__file__).parents[2] / "contrib/lab"
PROMPT = "lab> "
STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The lab in a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "TERM": "dumb", "HYBRIDGREY_LAB": str(folder)}
        self.text = ""
        self.greeting = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            try:
                os.execve(sys.executable, [sys.executable, str(LAB / "serve.py")], self.environment)  # noqa: S606
            finally:
                os._exit(127)

    def until(self, wanted: str, timeout: float = 90) -> str:
        """Read up to what is wanted; all that was read."""
        end = time.monotonic() + timeout
        while wanted not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self._terminal], [], [], 1)[0]:
                try:
                    data = os.read(self._terminal, 65536)
                except OSError:  # EIO: the last process has closed it
                    data = b""
                assert data, self.text
                self.text += STYLES.sub("", data.decode(errors="replace")).replace("\r\n", "\n")
        read, _, self.text = self.text.partition(wanted)
        return read

    def type(self, line: str) -> str:
        """Type a command; what it printed."""
        os.write(self._terminal, line.encode() + b"\n")
        return self.until(PROMPT).removeprefix(line)

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.write(self._terminal, b"\x03")

    def end(self) -> int:
        """Wait for the end; the exit status."""
        self.until("All that was started has been ended.")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def lab(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """The command in another terminal."""
        return subprocess.run(
            [sys.executable, LAB / "client.py", *words],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=90,
        )


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    require(mxrow.missing())
    # As long a path as no socket can have.
    folder = tmp_path_factory.mktemp("lab" + "o" * 100)
    made = Terminal(folder)
    try:
        picture = made.until(PROMPT)
        assert all(name in picture for name in (*mxrow.NETWORKS, *mxrow.MX_HOSTS, *mxrow.STORES, "mailbox"))
        made.greeting = picture
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(made.pid, signal.SIGKILL)
            os.waitpid(made.pid, 0)


def test_a_sender_is_put_off_and_comes_back_elsewhere(terminal):
    """send shows the dialogue and the verdict; the time that it tells is the time to wait."""
    first = terminal.type("send office mx1")
    assert "> RCPT TO:<ann@example.test>\n      450 4.2.0 Greylisted, please try again in 10 seconds" in first
    assert "greylist (new)" in first
    begun = time.monotonic()
    early = terminal.lab("send", "office", "mx2", "--address", "192.0.2.200")
    assert (early.returncode, early.stderr) == (0, "")
    assert "greylist (early)" in early.stdout
    assert "come back to any MX host, from 192.0.2.0/24" in early.stdout
    time.sleep(max(0.0, begun + 10.5 - time.monotonic()))
    assert "greylist (passed)" in terminal.type("send office mx3 --address 192.0.2.77")
    # By way of mx1 or mx2, for mx3 is the backup.
    wait_until(lambda: "X-Greylist: delayed" in terminal.lab("mail").stdout, "it has arrived", 60)


def test_lists_decide_by_ipv4_and_ipv6(terminal):
    """The bank is let in and the botnet is not, and explain says so beforehand."""
    assert "accept [wl.test 127.0.5.2]" in terminal.lab("send", "bank", "mx2", "-6").stdout
    refused = terminal.lab("send", "botnet", "mx3").stdout
    assert "554 5.7.1 Service unavailable; client [198.18.0.10] blocked using bl.test" in refused
    why = json.loads(terminal.lab("explain", "2001:db8:e::a", "--json").stdout)
    assert (why["question"]["client"], why["rule"], why["action"]) == (
        "2001:db8:e::a",
        "blocklists",
        "reject",
    )
    spam = terminal.lab("spam", "--count", "60").stdout
    assert spam.count("x 450 greylisted") == spam.count("x 554 refused, on the blocklist") == 3
    assert "250" not in spam


def test_the_page_is_within_reach(terminal):
    """The greeting has its address, and a browser of this machine gets it there, for each host."""
    (greeted,) = re.findall(r"web page: (http://\S+)", terminal.greeting)
    assert terminal.type("page").split() == [greeted]
    other = terminal.type("page mx2").strip()
    assert other != greeted
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for url, host in ((greeted, "mx1"), (other, "mx2"), (greeted, "mx1")):
        with opener.open(f"{url}api/lists", timeout=30) as answer:
            assert json.load(answer)["host"].partition(".")[0] == host


def test_things_break_and_are_mended(terminal):
    """A cable is cut, Redis is killed: status says so, mail goes on, and all can be put back."""
    assert terminal.lab("cut", "mx2", "back").stdout == "mx2 is cut off from back\n"
    sent = terminal.lab("send", "elsewhere", "mx2").stdout
    assert "250 2.0.0 Ok: queued" in sent
    assert "store: " in sent
    killed = terminal.lab("kill-redis").stdout
    assert "killed Redis on store1" in killed
    status = terminal.lab("status").stdout
    assert "cables cut: mx2 from back" in status
    assert "Redis on store1: killed" in status
    assert terminal.lab("heal", "mx2").stdout == "mx2 is on front again\nmx2 is on back again\n"
    assert terminal.lab("start-redis").stdout == "Redis on store1 is up again\n"
    assert "killed" not in terminal.lab("status").stdout


def test_hosts_can_be_entered(terminal):
    """run and shell are on the host, with its name and the configuration of its own Postfix."""
    assert terminal.lab("run", "mx1", "hostname").stdout == "mx1.example.test\n"
    assert terminal.lab("run", "mx2", "postqueue", "-p").stdout == "Mail queue is empty\n"
    assert terminal.lab("shell", "store2", text="hostname; exit 3").stdout == "store2.example.test\n"
    assert terminal.lab("shell", "store2", text="exit 3").returncode == 3
    # The lists of the small internet are looked at a moment after the daemon is ready.
    status = ("run", "mx3", "hybridgrey", "status", "--json")
    wait_until(lambda: '"state": "ok"' in terminal.lab(*status).stdout, "mx3 is well", 60)
    assert "from=<joe@office.test>" in terminal.lab("log", "mx1", "--mta", "-n", "500").stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["cut", "mx9"], 1, "lab: no host mx9; there are office"),
        (["cut", "mx1", "wan"], 1, "lab: mx1 is not on wan, but on front, back"),
        (["send", "office", "mx1", "--address", "198.51.100.1"], 1, "lab: 198.51.100.1 is not in office"),
        (["send", "office", "mx1", "--address", "nowhere"], 1, "lab: 'nowhere' does not appear to be"),
        (["start-redis"], 1, "lab: no Redis was killed"),
        (["run", "mx9", "true"], 69, "lab: no host mx9"),
        (["dance"], 2, "invalid choice: 'dance'"),
        (["send", "office"], 2, "the following arguments are required: mx"),
        ([], 2, "the following arguments are required: COMMAND"),
    ],
    ids=str,
)
def test_mistakes_are_told(terminal, words, status, said):
    """What cannot be done is one line, and the lab goes on."""
    done = terminal.lab(*words)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_reader_may_go_away(terminal):
    """`lab … | head` ends without a word."""
    line = f"{sys.executable} {LAB / 'client.py'} map | head -n 1"
    done = subprocess.run(
        ["sh", "-c", line], env=terminal.environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def test_one_lab_at_a_time(terminal):
    """A second one says that there is one, and leaves it alone."""
    second = subprocess.run(
        [sys.executable, LAB / "serve.py"],
        env=terminal.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (second.returncode, second.stderr) == (1, "lab: one runs already\n")
    assert terminal.lab("map").returncode == 0


def test_ctrl_c_ends_all_of_it(terminal):
    """The prompt's Ctrl-C: exit status 0, no process left, and `lab` says that there is none."""
    pids = terminal.lab("run", "mx1", "sh", "-c", "ls -d /proc/[0-9]* | wc -l").stdout
    assert int(pids) > 30
    (first,) = [entry for entry in children(terminal.pid) if "unshare" in title(entry)][:1]
    terminal.interrupt()
    assert terminal.end() == 0
    assert not Path(f"/proc/{first}").exists()
    gone = terminal.lab("status")
    assert (gone.returncode, gone.stderr) == (69, "lab: no lab runs; start one with: make lab\n")


def children(pid):
    """The children of a process, whichever of its threads made them."""
    return [
        int(word)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for word in path.read_text().split()
    ]


def title(pid):
    """What a process was started as."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_without_root_it_says_what_it_needs():
    """One line and status 1."""
    # An unmapped user namespace: not root any more, but able to read what root may.
    if subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not permitted")
    done = subprocess.run(
        ["unshare", "--user", sys.executable, LAB / "serve.py"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == "lab: network namespaces and the mail servers in them need root\n"
