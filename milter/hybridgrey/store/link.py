"""One script call on one server: sockets, idle connections, the one repetition.

Connections are made by `plain`, or by redis-py where TLS, Sentinel or options are wanted (`redis_py`). The
exchange itself goes past redis-py, over the socket with hiredis, at half of the CPU: redis-py's read path
counts, measures and translates for callers that need it.

A call is repeated once, on a new connection, when an idle one turned out dead or its server is no primary
any more: that is what a restart and a fail-over look like. A reply that did not come in time is not waited
for again. The first try may have been carried out although its reply was lost, so a script must bear being
run twice.
"""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Final, NamedTuple, Protocol
from urllib.parse import SplitResult, unquote

import hiredis

_MAX_IDLE: Final = 32  # connections; more threads than that at once close theirs after use
MAX_AGE: Final = 60.0  # s; an older idle connection may have been forgotten by a firewall on the way
_LEAST_WAIT: Final = 0.05  # s; what a call on a new connection gets when connecting took all of its time
_READ: Final = 4096  # bytes; a reply has about 20
_REPLY_MAX: Final = 2**27  # bytes; a page of the fullest history has a tenth
# A list, at any depth, of more than 999,999 replies is none of ours; the reader would make room for as
# many as it is told, gigabytes and a minute in which no other thread runs.
_VAST: Final = re.compile(rb"\r\n[*~>%|][0-9]{7}")
_VAST_LESS_ONE: Final = 9  # bytes of that without the last: what of a chunk may be its beginning
# redis-py's words for a connection that failed; what `plain` says has the place and the reason.
_REDIS_PY: Final = re.compile(r"\AError -?\d+ connecting to (\S+?)\. ([^.]+)\.?\Z")
INCOMPLETE: Final = object()
"""What a reader has while a reply is not all there."""
_TEXT_MAX: Final = 4000  # characters of a server's text that are looked at; a line has fewer
_ARGUMENTS: Final = re.compile(r",? with args beginning with:.*", re.DOTALL)
# The server cannot serve us, though the connection is sound: another server, or a new login, may.
ELSEWHERE: Final = frozenset({"READONLY", "MASTERDOWN", "LOADING", "NOAUTH"})

Arguments = Sequence[bytes | int]


class StoreError(Exception):
    """The store did not do what it was asked, or is known to be down; the text is fit for a log."""


class LostError(StoreError):
    """The connection or its server is of no use any more; a new connection may be."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the SHA-1 by which the server knows it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)

    @classmethod
    def installed(cls, package: str, name: str) -> Script:
        """A script by its file in a package.

        To be called while modules are loaded: later a process may be a user who must not read it.
        """
        return cls((resources.files(package) / name).read_text(encoding="utf-8"))


class Call(NamedTuple):
    """A script to run; all its keys are in one shard.  `seconds`: the longest wait, None for the store's."""

    script: Script
    keys: Sequence[bytes]
    args: Arguments
    seconds: float | None = None


class Backend(Protocol):
    """A kind of server."""

    def evaluate(self, script: Script, keys: Sequence[bytes], args: Arguments, timeout: float) -> object:
        """Run the script and return its reply within about `timeout` seconds. Raises StoreError."""

    def shard(self, keys: Sequence[bytes], /) -> str:
        """The name of the part of the store that has these keys and may fail by itself; "" for all of it."""

    def samples(self, key: bytes, /) -> Sequence[bytes]:
        """Keys that begin with `key`, one in each shard."""

    def close(self) -> None:
        """Close what is idle."""


class Guard:
    """Looks at what comes, so that no server makes us keep more than a reply of its own can be."""

    __slots__ = ("_seen", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._seen = b"\r\n"

    def look(self, data: bytes) -> None:
        """The next bytes of a reply. Raises hiredis.ProtocolError."""
        self._size += len(data)
        seen = self._seen + data
        if self._size > _REPLY_MAX or _VAST.search(seen):
            raise hiredis.ProtocolError("a reply too long")
        self._seen = seen[-_VAST_LESS_ONE:]

    def whole(self) -> None:
        """A reply has come to its end; what is counted from now on is the next one's."""
        self._size = 0


class Link:
    """One connected socket with the reader of its replies."""

    __slots__ = ("_close", "_reader", "_socket", "_timeout", "used")

    def __init__(self, connected: socket.socket, close: Callable[[], None], timeout: float) -> None:
        """`close` ends the connection of the socket, whose timeout is `timeout` seconds."""
        self._socket = connected
        self._close = close
        self._reader = hiredis.Reader(notEnoughData=INCOMPLETE)
        self._timeout = timeout
        self.used = 0.0

    @property
    def socket(self) -> socket.socket:
        """For who makes the exchange himself; `close` stays the way to end it."""
        return self._socket

    def exchange(self, command: bytes, timeout: float) -> object:
        """Send a packed command, return its reply (a hiredis.ReplyError is returned, not raised)."""
        if timeout != self._timeout:
            self._socket.settimeout(timeout)
            self._timeout = timeout
        self._socket.sendall(command)
        deadline, guard = 0.0, Guard()
        while (reply := self._reader.gets()) is INCOMPLETE:
            if deadline:
                # It came in pieces: the timeout is for all of them, also for those that come without a pause.
                self._timeout = deadline - time.monotonic()
                if self._timeout <= 0:
                    raise TimeoutError
                self._socket.settimeout(self._timeout)
            data = self._socket.recv(_READ)
            if not data:
                raise ConnectionResetError("closed by the server")
            guard.look(data)
            self._reader.feed(data)
            deadline = deadline or time.monotonic() + timeout
        return reply

    def close(self) -> None:
        """Close the socket."""
        self._close()


class Where(Protocol):
    """Makes connections to the server that is in charge now."""

    @property
    def remembered(self) -> bool:
        """Whether the next connection goes to an address learnt earlier, which may have changed."""

    def link(self, timeout: float) -> Link:
        """A new connection, made in steps of at most `timeout` seconds each. Raises LostError."""

    def forget(self) -> None:
        """Learn the address anew."""


class Direct:
    """One server, by way of idle connections kept in a list.

    `list.pop` and `append` are atomic, so no lock is needed; the last used is taken first, so that the extra
    connections of a burst grow old and are dropped.
    """

    def __init__(self, where: Where) -> None:
        self.where = where
        self._idle: list[Link] = []

    def evaluate(self, script: Script, keys: Sequence[bytes], args: Arguments, timeout: float) -> object:
        """As in Backend; connecting, reply and repetition share the timeout."""
        command = pack("EVALSHA", script.sha, len(keys), *keys, *args)
        deadline = time.monotonic() + timeout
        link = self._take()
        may_repeat = link is not None or self.where.remembered
        try:
            return self._call(link or self.where.link(timeout), command, timeout, script, keys, args)
        except LostError:
            self.close()
            self.where.forget()
            left = deadline - time.monotonic()
            if not may_repeat or left <= 0:
                raise
        link = self.where.link(left)
        left = max(_LEAST_WAIT, deadline - time.monotonic())
        return self._call(link, command, left, script, keys, args)

    def shard(self, _keys: Sequence[bytes], /) -> str:
        """As in Backend: one server fails as a whole."""
        return ""

    def samples(self, key: bytes, /) -> Sequence[bytes]:
        """As in Backend."""
        return (key,)

    def close(self) -> None:
        """As in Backend."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took the last one
                return

    def _take(self) -> Link | None:
        """The idle connection used last, unless all are too old."""
        try:
            link = self._idle.pop()
        except IndexError:
            return None
        if time.monotonic() - link.used <= MAX_AGE:
            return link
        link.close()
        self.close()  # the others are older
        return None

    def _call(
        self,
        link: Link,
        command: bytes,
        timeout: float,
        script: Script,
        keys: Sequence[bytes],
        args: Arguments,
    ) -> object:
        """The reply to `command`; the link goes back to the list only after a whole reply."""
        try:
            reply = link.exchange(command, timeout)
            if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                reply = link.exchange(pack("EVAL", script.text, len(keys), *keys, *args), timeout)
        except (OSError, hiredis.HiredisError) as error:
            link.close()
            raise LostError(reason(error)) from None
        except BaseException:
            link.close()  # interrupted half-way: the reply would answer the next question
            raise
        if isinstance(reply, hiredis.ReplyError):
            raise self._refused(link, str(reply))
        self._give_back(link)
        return reply

    def _refused(self, link: Link, text: str) -> StoreError:
        """The error for an error reply."""
        if text.split(" ", 1)[0] in ELSEWHERE:
            link.close()
            return LostError(clean(text))
        self._give_back(link)
        return StoreError(clean(text))

    def _give_back(self, link: Link) -> None:
        if len(self._idle) >= _MAX_IDLE:
            link.close()
            return
        link.used = time.monotonic()
        self._idle.append(link)


def pack(*words: str | bytes | int) -> bytes:
    """A command as the server reads it."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub: tuples of one only
    return packed


def reason(error: BaseException) -> str:
    """Why a connection failed, for a log line."""
    # By its name too: redis-py has a TimeoutError of its own.
    if type(error).__name__ == TimeoutError.__name__:
        return "no answer in time"
    # Not str of an OSError that has a number: the number says nothing to an admin.
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = _REDIS_PY.sub(r"\1: \2", text)
    return clean(text or type(error).__name__)


def split(url: str) -> SplitResult:
    """The parts of a store URL. Raises ValueError.

    `urlsplit` of newer Pythons refuses a list of hosts in which a bracketed IPv6 address is not the first.
    """
    match = re.fullmatch(r"(.*?)://([^/?]*)([^?]*)\??(.*)", url, re.DOTALL)
    if match is None:
        raise ValueError("it is no URL")
    scheme, place, path, query = match.groups("")
    return SplitResult(scheme, place, path, query, "")


def clean(text: str, url: str = "") -> str:
    """One bounded line without the URL or its password, whatever a library or server put into its message."""
    # A server that does not know AUTH, or by another name, says what it was given.
    text = _ARGUMENTS.sub("", text[:_TEXT_MAX])
    password = split(url).password if "://" in url else None
    for secret in (url, password, unquote(password or "")):
        if secret:
            text = text.replace(secret, "***")
    return "".join(c if c.isprintable() else " " for c in text)[:200]
