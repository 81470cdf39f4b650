"""An account that has been broken into: a process without rights that exchanges names in its folder.

    with Attacker(folder, precious, catch("socket")) as attacker:
        ...  # what root does there
    assert attacker.unharmed()

`precious` is a file of root's that the account may neither read nor write, in a folder of root's.
"""

# ruff: noqa: PTH104, PTH211  # pathlib is slower, and this is a race

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import TracebackType

UID = 65534
LINKS = 2000  # made beforehand, so that an exchange is two system calls

Attack = Callable[[Path], Callable[[], None]]
"""Prepares itself in the working directory for a file of root's; the result is called again and again."""


def catch(name: str) -> Attack:
    """As soon as something has this name, move it away and put a link to the file in its place."""

    def prepare(precious: Path) -> Callable[[], None]:
        for number in range(LINKS):
            os.symlink(precious, f"link-{number}")
        numbers = count()

        def attack() -> None:
            os.rename(name, "caught")  # fails until there is one
            os.rename(f"link-{next(numbers) % LINKS}", name)

        return attack

    return prepare


def catch_folders(precious: Path) -> Callable[[], None]:
    """The same with each folder that appears, whatever its name; the link is to root's folder."""
    numbers = count()

    def attack() -> None:
        with os.scandir(".") as entries:
            names = [one.name for one in entries if one.is_dir(follow_symlinks=False)]
        for name in names:
            if not name.startswith("caught"):
                os.rename(name, f"caught-{next(numbers)}")
                os.symlink(precious.parent, name)

    return attack


def swing(name: str) -> Attack:
    """Let the name stand for what it is and for root's folder, by turns."""

    def prepare(precious: Path) -> Callable[[], None]:
        os.symlink(precious.parent, "link")

        def attack() -> None:
            for old, new in ((name, "real"), ("link", name), (name, "link"), ("real", name)):
                os.rename(old, new)

        return attack

    return prepare


class Attacker:
    """See the module.  Needs root; `folder` becomes the account's."""

    def __init__(self, folder: Path, precious: Path, attack: Attack) -> None:
        self.folder = folder
        self._precious = precious
        self._attack = attack
        folder.mkdir(exist_ok=True)
        os.chown(folder, UID, UID)
        precious.parent.mkdir(exist_ok=True)
        precious.write_text("secret")
        precious.chmod(0o600)
        for above in folder.parents:
            if not above.stat().st_mode & stat.S_IXOTH:
                above.chmod(above.stat().st_mode | 0o011)
        self._before = self._state()

    def __enter__(self) -> Attacker:
        reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._run(writer)
            finally:
                os._exit(1)
        os.close(writer)
        started = os.read(reader, 1)
        os.close(reader)
        assert started, "the attacker has not come up"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def unharmed(self) -> bool:
        """Whether root's file and folder are as they were."""
        return self._state() == self._before

    def successes(self) -> int:
        """How often something was caught; to be asked while the attacker lives or after."""
        return len(list(self.folder.glob("caught*")))

    def _state(self) -> list[tuple[object, ...]]:
        above = self._precious.parent
        seen = [(one, one.lstat()) for one in (above, *sorted(above.iterdir()))]
        return [(one, s.st_mode, s.st_uid, s.st_gid, s.st_size) for one, s in seen]

    def _run(self, started: int) -> None:
        parent = os.getppid()
        os.setgroups([])
        os.setgid(UID)
        os.setuid(UID)
        os.chdir(self.folder)
        attack = self._attack(self._precious)
        os.write(started, b".")
        while os.getppid() == parent:
            with contextlib.suppress(OSError):
                attack()
