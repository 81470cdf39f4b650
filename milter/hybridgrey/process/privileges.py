"""What the daemon may do: the account it runs as, how many files it may open, its priority."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridgrey import folders

ENOUGH_FILES = 4096
"""A session takes one descriptor, and its lookup one more; below this a burst of clients can run dry."""


class PrivilegeError(Exception):
    """The account cannot be taken; `status` is the exit status (sysexits.h)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system, with the groups that a login would have."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def account(user: str) -> Account | None:
    """Look `user` up; None when no change of user is asked for.  Raises PrivilegeError."""
    if not user:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise PrivilegeError(f"user: no user {user!r} on this system", os.EX_CONFIG) from None
    groups = tuple(os.getgrouplist(user, entry.pw_gid))
    return Account(user, entry.pw_uid, entry.pw_gid, groups)


def drop(to: Account | None) -> None:
    """Become `to` for good.  As that user already, nothing is done.  Raises PrivilegeError."""
    if to is None or (os.geteuid() == to.uid and os.getuid() == to.uid):
        return
    if os.geteuid() != 0:
        raise PrivilegeError(f"user: only root can change to {to.name!r}", os.EX_NOPERM)
    os.setgroups(list(to.groups))
    os.setresgid(to.gid, to.gid, to.gid)
    os.setresuid(to.uid, to.uid, to.uid)


def act_as(uid: int) -> str:
    """Open and connect as this user from now on, if we are root and it is not; its name, "" else.

    For a command that goes by what the user says.  Only the effective ids change: who gives the command stays
    known.  Raises OSError.
    """
    if os.geteuid() != 0 or folders.is_root(uid):
        return ""
    try:
        entry = pwd.getpwuid(uid)
        name, gid, groups = entry.pw_name, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        name, gid, groups = f"uid {uid}", uid, [uid]
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    return name


def warnings(files: Sequence[Path], by: Account | None) -> tuple[str, ...]:
    """What `by` will fail at that root does not: reading the program, and the configuration at a reload.

    Call it while there is one thread.  Raises PrivilegeError.
    """
    program = _program()
    found = unreadable([*program, *files], by)
    if by is None or not found:
        return ()
    told = [f"{by.name} cannot read {path}: a reload will fail" for path in found if path in files]
    if found[0] in program:
        told.append(
            f"{by.name} cannot read {found[0]}, which the program needs when it runs: "
            f"install it where {by.name} may read"
        )
    return tuple(told)


def _program() -> list[Path]:
    """Of this package and of one that it needs later on, and that may be elsewhere, a file each."""
    other = importlib.util.find_spec("dns")
    return [Path(__file__), *([Path(other.origin)] if other and other.origin else [])]


def unreadable(paths: Sequence[Path], by: Account | None) -> list[Path]:
    """Those of the existing files that `by` may not read; none unless we are root.

    Asked in a child that has become `by`, for only the kernel knows all of ACLs, mounts and folders above.
    Call it while there is one thread.  Raises PrivilegeError.
    """
    there = [path for path in paths if path.exists()]
    if by is None or by.uid == 0 or os.geteuid() != 0 or not there:
        return []
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            drop(by)
            os.write(writer, bytes(not os.access(path, os.R_OK) for path in there))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        marks = answers.read()
    os.waitpid(child, 0)
    # No answer is no finding
    return [path for path, mark in zip(there, marks, strict=False) if mark]


def raise_file_limit() -> int:
    """Lift the soft limit of open files to the hard one; the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            # macOS has an infinite hard limit that it does not grant; the soft one is what we have
            return soft
    return hard if hard != resource.RLIM_INFINITY else ENOUGH_FILES


def set_priority(nice: int) -> None:
    """Take a priority (nice(2), -20 to 19), as far as we may, and unless somebody else has given us one."""
    if os.getpriority(os.PRIO_PROCESS, 0) == 0:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)


def step_back() -> None:
    """Give up a priority above the usual: nobody waits for what this process does."""
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
