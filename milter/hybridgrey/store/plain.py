"""A server reached over TCP or a unix socket without TLS, connected without redis-py.

Importing redis-py costs 8 MiB in each process and a tenth of a second at the start, most of it for its
asyncio half; what it does for such a server is AUTH and SELECT.  The other kinds of server, and URLs with
options, are `redis_py`' and redis-py's.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs, unquote

import hiredis

from hybridgrey.address import endpoint_text
from hybridgrey.store.link import Link, LostError, clean, pack, reason, split

_PORT: Final = 6379


class Server:
    """One server at a fixed place (`link.Where`)."""

    remembered: Final = False

    def __init__(self, place: tuple[str, int] | str, commands: Sequence[bytes] = ()) -> None:
        """`place`: host and port, or the path of a socket; `commands`: packed, for each new connection."""
        self._place = place
        self._commands = tuple(commands)

    def link(self, timeout: float) -> Link:
        """As in Where."""
        try:
            sock = self._connected(timeout)
        except (OSError, UnicodeError) as error:  # the second: no name that DNS could have
            raise LostError(f"{self._name()}: {reason(error)}") from None
        link = Link(sock, sock.close, timeout)
        try:
            self._log_in(link, timeout)
        except (OSError, hiredis.HiredisError) as error:
            link.close()
            raise LostError(reason(error)) from None
        except BaseException:
            link.close()
            raise
        return link

    def _log_in(self, link: Link, timeout: float) -> None:
        for command in self._commands:
            reply = link.exchange(command, timeout)
            if isinstance(reply, hiredis.ReplyError):
                raise LostError(clean(str(reply)))

    def forget(self) -> None:
        """Nothing is remembered."""

    def _connected(self, timeout: float) -> socket.socket:
        if not isinstance(self._place, str):
            sock = socket.create_connection(self._place, timeout)
            # A command is one small write, and the next must not wait for its acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(self._place)
        except BaseException:
            sock.close()
            raise
        return sock

    def _name(self) -> str:
        if isinstance(self._place, str):
            return self._place
        return endpoint_text(*self._place)


def server(url: str) -> Server | None:
    """The server of a redis:// or unix:// URL; None for another kind and for one with further options.

    Raises ValueError for a URL that cannot be read.
    """
    parts = split(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme not in ("redis", "unix") or set(query) - {"db"}:
        return None
    path = unquote(parts.path)
    database = query["db"][-1] if "db" in query else ""
    if parts.scheme == "redis":
        database = database or path.strip("/")
        place: tuple[str, int] | str = unquote(parts.hostname or "localhost"), parts.port or _PORT
    else:
        place = path
    commands = []
    if parts.username or parts.password:
        # Without a user name it is the server's one password, as before there were users; some need none.
        user = [unquote(parts.username)] if parts.username else []
        commands.append(pack("AUTH", *user, unquote(parts.password or "")))
    if int(database or 0):
        commands.append(pack("SELECT", int(database)))
    return Server(place, commands)
