"""A machine of one's own: Debian's minimal system in namespaces, with systemd or without. Needs root.

    with CleanRoot() as machine:
        machine.copy(package, "/tmp/package.deb")
        machine.run("dpkg", "-i", "/tmp/package.deb")
        reply = machine.within(lambda: session(("127.0.0.1", 8893)))

The system is made once by mmdebstrap, from the package sources that apt is set up with here, and kept
in `.work/cleanroot`; each machine has a layer of its own above it, in memory. Its network is a loopback
interface.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from parts.base import Part, PartError, wait_until
from parts.namespace import CLONE_NEWNET

T = TypeVar("T")
HOME = Path(__file__).parent.parent.parent / ".work" / "cleanroot"
# What our package and a Python environment depend on, so that they install without a network; init systems.
INCLUDED = ("adduser", "libmilter1.0.1", "logrotate", "python3", "python3-venv", "systemd", "systemd-sysv")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAKING = 600.0  # s, from a slow mirror

SCRIPT = """\
set -e
ip link set lo up
hostname clean.test
mount -t tmpfs -o mode=755 layer {directory}/layer
cd {directory}/layer
mkdir base upper work root
mount --bind {base} base
mount -t overlay -o lowerdir=base,upperdir=upper,workdir=work overlay root
cd root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup || {optional}
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
rm -f etc/resolv.conf
echo nameserver 127.0.0.1 >etc/resolv.conf
printf '127.0.0.1 localhost clean.test\\n' >etc/hosts
mkdir .old
pivot_root . .old
umount -l /.old
rmdir /.old
exec env -i container=test PATH={path} {init}
"""
# PID 1 without systemd: it reaps, as start-stop-daemon looks whether a process is really gone.
BARE = """/usr/bin/python3 -c '
import os, time
if os.fork() == 0:
    time.sleep(1e6)
while True:
    os.waitpid(-1, 0)'"""
INITS = {
    "bare": BARE,
    "systemd": "/lib/systemd/systemd --system --log-target=console systemd.unit=multi-user.target",
}


def missing() -> str:
    """Why there can be no such machine here; empty when there can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    for tool in ("mmdebstrap", "unshare", "nsenter", "ip"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "no overlay file system here"
    test = ["unshare", "--pid", "--fork", "--mount", "--uts", "--ipc", "--net", "--cgroup", "true"]
    return "" if subprocess.run(test, capture_output=True).returncode == 0 else "unshare is not permitted"


def sources() -> str:
    """Debian's package sources as apt has them here, one a line as in sources.list."""
    form = "$(ORIGIN)|$(SIGNED_BY)|$(SITE) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    if not lines:  # apt has no lists yet
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    fields = [line.split("|") for line in dict.fromkeys(lines)]
    debian = [(signed, place) for origin, signed, place in fields if origin == "Debian"]
    return "".join(
        f"deb {f'[signed-by={signed}] ' if signed.startswith('/') else ''}{place}\n"
        for signed, place in debian
    )


def base() -> Path:
    """The minimal system, made at the first use; skip or fail is the caller's choice on PartError."""
    HOME.mkdir(parents=True, exist_ok=True)
    release = re.search(r"(?m)^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
    if release is None:
        raise PartError("not a release of Debian")
    # A path of its own for each selection: a machine that runs on the old one keeps it
    digest = hashlib.sha256(" ".join((release[1], *INCLUDED)).encode()).hexdigest()[:8]
    root = HOME / f"{release[1]}-{digest}"
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "made").exists():
            shutil.rmtree(root, ignore_errors=True)
            _make(root, release[1])
    return root / "root"


def _make(root: Path, release: str) -> None:
    root.mkdir()
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(INCLUDED)}"]
    with (root / "log").open("w") as log:
        done = subprocess.run(
            [*command, release, str(root / "root"), "-"],
            input=sources(),
            text=True,
            stdout=log,
            stderr=log,
            timeout=MAKING,
            check=False,
        )
    if done.returncode != 0:
        raise PartError(f"mmdebstrap failed\n{(root / 'log').read_text()[-2000:]}")
    (root / "made").touch()


class CleanRoot(Part):
    """The machine; `init` says what its PID 1 is."""

    def __init__(self, init: Literal["systemd", "bare"] = "systemd") -> None:
        super().__init__()
        self.init = init
        (self.directory / "layer").mkdir()
        self._base = base()
        self._group = _own_group(self.directory.name) if init == "systemd" else None

    def command(self) -> list[str]:
        script = SCRIPT.format(
            base=shlex.quote(str(self._base)),
            directory=self.directory,
            init=INITS[self.init],
            optional="false" if self.init == "systemd" else "true",
            path=PATH,
        )
        if self._group is not None:
            script = f"echo 0 >{self._group}/cgroup.procs\nexec unshare --cgroup sh -c '\n{_quoted(script)}'"
        spaces = ["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net"]
        return ["unshare", *spaces, "--propagation", "private", "sh", "-c", script]

    def ready(self) -> bool:
        try:
            words = Path(f"/proc/{self.first}/cmdline").read_text()
        except (OSError, PartError):
            return False
        if not words.startswith(INITS[self.init].split()[0]):
            return False  # the script is not done yet
        return self.init == "bare" or self._answers("systemctl", "is-active", "multi-user.target")

    def _answers(self, *words: str) -> bool:
        return self.run(*words, check=False).returncode == 0

    @property
    def first(self) -> int:
        """PID 1 of the machine, as seen from outside."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        if not children:
            raise PartError("the machine has no PID 1")
        return int(children[0])

    def path(self, inside: str) -> Path:
        """A file of the machine, as seen from outside."""
        return Path(f"/proc/{self.first}/root{inside}")

    def copy(self, source: Path, inside: str) -> None:
        """Put a file into the machine."""
        shutil.copy(source, self.path(inside))

    def run(
        self, *words: str, check: bool = True, timeout: float = 100.0, network: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; PartError with what it said when it fails and `check`.

        With `network` it has the machine's own, else the one around it.
        """
        spaces = ["--pid", "--mount", "--uts", "--ipc", "--cgroup", "--root", *(["--net"] if network else [])]
        enter = ["nsenter", f"--target={self.first}", *spaces, "--"]
        clean = [
            "env",
            "-i",
            "-C",
            "/",
            f"PATH={PATH}",
            "HOME=/root",
            "LC_ALL=C.UTF-8",
            "DEBIAN_FRONTEND=noninteractive",
        ]
        done = subprocess.run(
            [*enter, *clean, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise PartError(f"{' '.join(words)}: status {done.returncode}\n{done.stdout[-3000:]}")
        return done

    def fetch(self, *packages: str) -> None:
        """Let the machine's apt download packages by the network around it; it can install them without."""
        inside = (
            "cp /tmp/resolv.conf /etc/resolv.conf; apt-get -qq update && apt-get -qq install --download-only"
        )
        command = f"{inside} --yes --no-install-recommends {shlex.join(packages)}"
        self.copy(Path("/etc/resolv.conf"), "/tmp/resolv.conf")
        self.run("sh", "-c", command, timeout=MAKING, network=False)
        self.path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        # From now on an update fails at once
        self.path("/etc/apt/apt.conf.d/99retries").write_text("Acquire::Retries 0;\n")

    def within(self, work: Callable[[], T]) -> T:
        """Call `work` where new sockets belong to the machine's network; setns() moves the thread alone."""
        results: list[T] = []
        errors: list[BaseException] = []
        target = f"/proc/{self.first}/ns/net"

        def inside() -> None:
            try:
                _enter_network(target)
                results.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def stop(self, number: int = 9, timeout: float = 20.0) -> int | None:
        """Pull the plug: unshare dies, and with it PID 1 and all others."""
        return super().stop(number, timeout)

    def close(self) -> None:
        super().close()
        if self._group is not None:
            wait_until(lambda: _remove_group(self._group), "the machine's processes are gone")


def _enter_network(namespace: str) -> None:
    with Path(namespace).open() as network:
        if ctypes.CDLL(None).setns(network.fileno(), CLONE_NEWNET) != 0:
            raise PartError("setns() into the machine failed")


def _quoted(script: str) -> str:
    return script.replace("'", "'\\''")


def _own_group(name: str) -> Path:
    """A control group of the unified hierarchy, where systemd makes those of its units."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, place, kind, options = line.split()[:4]
        if kind == "cgroup2" and "rw" in options.split(","):
            group = Path(place) / name
            group.mkdir()
            return group
    raise PartError("no writable cgroup2 hierarchy is mounted here")


def _remove_group(group: Path | None) -> bool:
    if group is None or not group.exists():
        return True
    try:
        for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            path.rmdir()
        group.rmdir()
    except OSError:  # a dying process is still in one of them
        return False
    return True
