"""The folder of the embedded store, made or taken over by root for the account that the daemon becomes.

A first start without `user` leaves a folder of root's with files of root's; a later one with `user` needs
both to be the account's.  So root gives away what an earlier start has made, and that only: a folder that is
its own, that nobody else may write to, and that holds nothing but what a store leaves, a lock of ours among
it.  There nobody can exchange a name while it is looked at, and no other program's folder looks so.

Known names were chosen rather than a mark: version 0.1 left none, and in a folder of the account's, where a
mark would be worth something, the account could move it, or a file of root's, to any name.  There root gives
away nothing at all; data that are not the account's end the start with a word on them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hybridgrey import folders
from hybridgrey.cleaning import clean
from hybridgrey.process.privileges import Account, PrivilegeError

LOCKS: Final = frozenset({"server.lock", "master.lock"})
FILES: Final = (
    LOCKS
    | {"store.sock", "server.log", "hybridgrey.pid", "appendonly.aof"}
    | {"hybridgrey.in-effect", "hybridgrey.in-effect.new"}
    | {"hybridgrey.hand", "hybridgrey.hand.new"}
    | {"hybridgrey.pools", "hybridgrey.pools.new"}
)
"""What the daemon and its server make there; whoever makes another file adds its name."""
DATA: Final = "appendonlydir"
_TEMPORARY: Final = r"temp-.*\.(aof|rdb|manifest)"  # left by a server that was killed
_DATA_FILE: Final = re.compile(rf"appendonly\.aof\..*|{_TEMPORARY}")

Entries = dict[str, os.stat_result]


def prepare(path: Path, owner: Account | None, also: Collection[str] = ()) -> None:
    """Make the folder or take it over; as root for `owner`.  Raises PrivilegeError.

    `also` are the names of more files of ours that may be there.
    """
    giver = os.geteuid() == 0 and owner is not None and owner.uid != 0
    ids = (owner.uid, owner.gid) if giver and owner else (-1, -1)
    try:
        made = folders.made(path, 0o700, uid=ids[0], gid=ids[1], parents=True)
        if made or not giver or owner is None:
            return
        with _readable(path) as fd:
            _Inspection(path, owner, FILES | set(also)).take_over(fd)
    except OSError as exc:
        raise PrivilegeError(f"store: {path}: {exc.strerror}", os.EX_NOPERM) from exc


@dataclass(frozen=True, slots=True)
class _Inspection:
    """A folder that was there, seen by root; every refusal comes before the first change."""

    path: Path
    owner: Account
    files: Collection[str]

    def take_over(self, fd: int) -> None:
        """Give the open folder away if an earlier start of ours has made it; not if it is the account's."""
        status, entries = os.fstat(fd), _entries(fd)
        known = {name: entry for name, entry in entries.items() if self._is_known(name)}
        self._refuse_links(known)
        if status.st_uid == self.owner.uid:
            self._refuse_others_files(fd, known)
            return
        if not folders.is_root(status.st_uid):
            raise self._refusal("", f"it belongs to {_name(status.st_uid)}, not to {self.owner.name}")
        self._refuse_foreign(entries.keys() - known.keys())
        if not LOCKS & known.keys():
            raise self._refusal(
                "", f"we have not made it; give it to {self.owner.name} (chown), or remove it"
            )
        if folders.others_may_write(status):
            raise self._refusal("", "it is root's, and others may write there")
        self._refuse_running(fd, known)
        self._give(fd, known)

    def _is_known(self, name: str) -> bool:
        return name == DATA or name in self.files or bool(re.fullmatch(_TEMPORARY, name))

    def _refuse_links(self, entries: Entries, below: str = "") -> None:
        for name, entry in entries.items():
            kind = stat.S_IFMT(entry.st_mode)
            if kind != stat.S_IFDIR if name == DATA else kind not in (stat.S_IFREG, stat.S_IFSOCK):
                raise self._refusal(below + name, "is a link, or else not what we have made; remove it")
            if kind == stat.S_IFREG and entry.st_nlink > 1:
                raise self._refusal(below + name, "has another name (hard link); remove it")

    def _refuse_foreign(self, names: Collection[str]) -> None:
        some = ", ".join(clean(name, 40) for name in sorted(names)[:3]) + (", …" if len(names) > 3 else "")
        if names:
            raise self._refusal(
                "", f"it holds what is not ours ({some}); take a folder of its own", os.EX_CONFIG
            )

    def _refuse_others_files(self, fd: int, entries: Entries) -> None:
        """In the account's folder the data are the account's; the rest it may replace by itself."""
        for name, entry in entries.items():
            if name in (*LOCKS, "server.log", DATA):
                self._refuse_other(name, entry)
        if DATA in entries:
            with _below(fd) as data:
                inside = _entries(data)
            self._refuse_links(inside, f"{DATA}/")
            for name, entry in inside.items():
                self._refuse_other(f"{DATA}/{name}", entry)

    def _refuse_other(self, name: str, entry: os.stat_result) -> None:
        if entry.st_uid != self.owner.uid:
            who = _name(entry.st_uid)
            raise self._refusal(name, f"belongs to {who}; give it to {self.owner.name} (chown)")

    def _refuse_running(self, fd: int, known: Entries) -> None:
        """A server of root's goes on as root, in a folder that would be another's then."""
        for name in LOCKS & known.keys():
            lock = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = (
                    f"a daemon or server of root's still runs there (fuser {self.path}/{name}); end it first"
                )
                raise self._refusal("", text, os.EX_UNAVAILABLE) from None
            finally:
                os.close(lock)

    def _give(self, fd: int, known: Entries) -> None:
        """Give away what is root's, the folder last: until then nobody else can change a name in it."""
        for name in known:
            self._may_be_given(name, known[name])
        if DATA in known:
            self._give_data(fd, known)
        for name in known.keys() - {DATA}:
            os.chown(name, self.owner.uid, self.owner.gid, dir_fd=fd, follow_symlinks=False)
        os.fchown(fd, self.owner.uid, self.owner.gid)

    def _give_data(self, fd: int, known: Entries) -> None:
        if known[DATA].st_uid == self.owner.uid:  # from a start that was cut short: what is in it came first
            self._refuse_others_files(fd, {DATA: known[DATA]})
            return
        with _below(fd) as data:
            inside = _entries(data)
            self._refuse_foreign([f"{DATA}/{name}" for name in inside if not _DATA_FILE.fullmatch(name)])
            self._refuse_links(inside, f"{DATA}/")
            if folders.others_may_write(os.fstat(data)):
                raise self._refusal(DATA, "is root's, and others may write there")
            for name in inside:
                self._may_be_given(f"{DATA}/{name}", inside[name])
            for name in inside:
                os.chown(name, self.owner.uid, self.owner.gid, dir_fd=data, follow_symlinks=False)
            os.fchown(data, self.owner.uid, self.owner.gid)

    def _may_be_given(self, name: str, entry: os.stat_result) -> None:
        if not folders.is_root(entry.st_uid):
            self._refuse_other(name, entry)

    def _refusal(self, name: str, text: str, status: int = os.EX_NOPERM) -> PrivilegeError:
        return PrivilegeError(f"store: {self.path / name}: {text}", status)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[int]:
    with folders.opened(path) as folder:
        fd = folders.readable(folder.fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _below(fd: int) -> Iterator[int]:
    """The folder of the data in the open folder `fd`."""
    data = os.open(DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        yield data
    finally:
        os.close(data)


def _entries(fd: int) -> Entries:
    found: Entries = {}
    for name in folders.names(fd):
        with contextlib.suppress(FileNotFoundError):  # a server of the account's works there meanwhile
            found[name] = os.stat(name, dir_fd=fd, follow_symlinks=False)
    return found


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
