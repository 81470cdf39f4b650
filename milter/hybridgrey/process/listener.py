"""The listening socket: opened once by the master, shared by all workers over fork.

libmilter could open it itself, but then as whom, with which mode, and who removes it?  Here the socket is
opened with the rights of the one who starts the daemon, before they are dropped, and it outlives every
worker and every reload, so that the kernel keeps connections waiting while processes come and go.

Accepted connections inherit what is set here: on Linux also TCP_NODELAY.  The socket is non-blocking,
because several workers wait for the same connection and only one gets it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import secrets
import socket
import stat
import struct
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from hybridgrey import folders
from hybridgrey.config.sockets import Address

BACKLOG = 4096  # cut by the kernel to its own limit (net.core.somaxconn, kern.ipc.soacceptqueue)
FIRST_INHERITED = 3  # sd_listen_fds(3)
_LOCK_WAIT = 5.0  # seconds that a second starter waits for the first to finish with the same folder
_CONFIG_ERRNOS = {errno.EADDRNOTAVAIL, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EAFNOSUPPORT}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}

Identity = tuple[int, int, int]


class ListenError(Exception):
    """The socket cannot be had; `status` is the exit status that tells why (sysexits.h)."""

    def __init__(self, message: str, status: int = os.EX_UNAVAILABLE) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Listener:
    """An open listening socket and, for a unix socket of our own, the file that stands for it."""

    socket: socket.socket
    path: Path | None = None
    identity: Identity = (0, 0, 0)

    def __str__(self) -> str:
        """The address in libmilter's syntax, with the real port where 0 was asked for."""
        if self.path is not None:
            return f"unix:{self.path}"
        name = self.socket.getsockname()
        match self.socket.family:
            case socket.AF_INET:
                return f"inet:{name[1]}@{name[0]}"
            case socket.AF_INET6:
                return f"inet6:{name[1]}@{name[0]}"
        return f"unix:{os.fsdecode(name)}"

    def close(self) -> None:
        """Stop listening in this process; the file stays, for workers may still share the socket."""
        self.socket.close()

    def remove(self) -> bool:
        """Remove our unix socket's file; False when it stays because the folder is not ours to change.

        A file that is another one by now belongs to a daemon started after us and is left alone.
        """
        if self.path is None:
            return True
        try:
            with folders.opened(self.path.parent) as folder:
                if _identity(self.path.name, folder.fd) == self.identity:
                    os.unlink(self.path.name, dir_fd=folder.fd)
        except FileNotFoundError:
            return True
        except OSError:  # not permitted, or not the way to our folder any more
            return False
        return True


def open_listener(address: Address, *, mode: int = 0o666, group: str = "", owner: int = -1) -> Listener:
    """Open the socket that `address` names.

    `mode` and `group` are those of a unix socket; `owner` is the uid that gets its folder when that has
    to be made.  Raises ListenError with one line for the admin.
    """
    try:
        if address.path is not None:
            return _open_unix(address.path, mode, _gid(group), owner)
        return _open_inet(address)
    except socket.gaierror as exc:
        raise ListenError(f"cannot listen on {address}: {exc.strerror}", os.EX_CONFIG) from exc
    except OSError as exc:
        raise ListenError(f"cannot listen on {address}: {_reason(exc)}", _status(exc)) from exc


def inherited(environ: MutableMapping[str, str]) -> Listener | None:
    """The socket that systemd has opened for us (sd_listen_fds(3)), or None when there is none.

    The variables are taken out of `environ`, so that no child takes them for its own.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal() or count == "0":
        return None
    if count != "1":
        raise ListenError(f"systemd passes {count} sockets, one is wanted", os.EX_CONFIG)
    try:
        sock = socket.socket(fileno=FIRST_INHERITED)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise ListenError(
            f"the descriptor passed by systemd is no socket: {exc.strerror}", os.EX_CONFIG
        ) from exc
    if not listening or sock.type != socket.SOCK_STREAM:
        raise ListenError("the socket passed by systemd is no listening stream socket", os.EX_CONFIG)
    os.set_inheritable(sock.fileno(), False)
    sock.setblocking(False)
    _no_delay(sock)
    return Listener(sock)


def _open_inet(address: Address) -> Listener:
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    flags = socket.AI_PASSIVE | socket.AI_NUMERICSERV
    found = socket.getaddrinfo(
        address.host or None, str(address.port), family, socket.SOCK_STREAM, flags=flags
    )
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" serves IPv4 clients too, on every system alike: the defaults of Linux and FreeBSD differ
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _no_delay(sock)
        sock.bind(found[0][4])
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return Listener(sock)


def _open_unix(path: Path, mode: int, gid: int, owner: int) -> Listener:
    folders.made(path.parent, 0o755, uid=owner)
    with folders.opened(path.parent) as folder, _locked(folder.fd, path.parent):
        _refuse_taken(folder.fd, path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            identity = _bind_unix(sock, folder.fd, path.name, mode, gid)
        except OSError:
            sock.close()
            raise
    sock.setblocking(False)
    return Listener(sock, path, identity)


def _bind_unix(sock: socket.socket, folder: int, name: str, mode: int, gid: int) -> Identity:
    """Make the socket's file where nobody else can reach it, and move it to its name when all of it is right.

    bind(2) and chown(2) know a file by its path only.  In a folder where another may write too, root would so
    give mode and group to what that one has put there since.  The move replaces a stale socket in one step.
    """
    with _private(folder) as inner:
        _bind_in(sock, inner, name)
        os.chown(name, -1, gid, dir_fd=inner, follow_symlinks=False)
        os.chmod(name, mode, dir_fd=inner)
        sock.listen(BACKLOG)
        identity = _identity(name, inner)
        os.rename(name, name, src_dir_fd=inner, dst_dir_fd=folder)
    return identity


@contextlib.contextmanager
def _private(folder: int) -> Iterator[int]:
    """A folder in `folder` into which only we can reach, for a moment."""
    name = f".hybridgrey-{secrets.token_hex(8)}"
    inner = folders.new(folder, name, 0o700, empty=True)
    try:
        yield inner
    finally:
        for left in folders.names(inner):
            os.unlink(left, dir_fd=inner)
        os.close(inner)
        with contextlib.suppress(OSError):  # who has moved it elsewhere may keep it: it is empty
            os.rmdir(name, dir_fd=folder)


def _bind_in(sock: socket.socket, folder: int, name: str) -> None:
    """Bind to a name in an open folder.  Raises OSError.

    Only the working directory can say which folder is meant.  It is a child's, for ours could be one that we
    may not come back to.
    """
    child = os.fork()
    if child == 0:
        try:
            os.fchdir(folder)
            sock.bind(name)
            os._exit(0)
        except OSError as exc:
            os._exit(exc.errno or errno.EINVAL)
        finally:
            os._exit(errno.EINVAL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, os.strerror(status) if status > 0 else "the child that binds was killed")


@contextlib.contextmanager
def _locked(folder: int, path: Path) -> Iterator[None]:
    """Let one starter at a time look at a stale socket and replace it; the lock goes with the descriptor."""
    fd = folders.readable(folder)
    try:
        deadline = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ListenError(f"{path} is locked by another process") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _refuse_taken(folder: int, path: Path) -> None:
    """Refuse anything but a stale socket that is there."""
    try:
        found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen on {path}: it exists and is not a socket", os.EX_CONFIG)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            owner = ""  # its backlog is full: busy, hence alive
        else:
            owner = _peer(probe)
    raise ListenError(f"cannot listen on {path}: in use{owner}")


def _peer(sock: socket.socket) -> str:
    """`` by NAME (pid N)`` of the process that listens, where the system tells."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return ""
    pid, _uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # no /proc, or gone since: the number alone is what we know
        name = "process"
    return f" by {name} (pid {pid})"


def _gid(group: str) -> int:
    if not group:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ListenError(f"socket_group: no group {group!r} on this system", os.EX_CONFIG) from None


def _no_delay(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _identity(name: str, folder: int) -> Identity:
    """Which file it is; the number alone may be given again at once, and chmod leaves the time as it is."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()


def _status(exc: OSError) -> int:
    if exc.errno in _NO_PERMISSION:
        return os.EX_NOPERM
    return os.EX_CONFIG if exc.errno in _CONFIG_ERRNOS else os.EX_UNAVAILABLE
