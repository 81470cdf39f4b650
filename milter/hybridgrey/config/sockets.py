"""Places in the config file: where the MTA reaches the milter; ``address:port`` of metrics and nameservers.

The first is in libmilter's syntax (``inet:8893@127.0.0.1``, ``inet6:8893@::1``, ``unix:/path``) and becomes
an `Address`, with which the daemon opens its socket.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# sockaddr_un holds 108 bytes on Linux and 104 on FreeBSD, the final zero byte included.
MAX_SOCKET_PATH = 103

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the MTA reaches the milter.

    An empty `host` means all interfaces; `path` is absolute, and set for unix sockets only.
    """

    family: Literal["inet", "inet6", "unix"]
    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        if self.family == "unix":
            return f"unix:{self.path}"
        return f"{self.family}:{self.port}" + (f"@{self.host}" if self.host else "")


def parse_address(text: str, folder: Path | None = None) -> Address:
    """Read an address in libmilter's syntax; raises ValueError.

    A relative socket path starts at `folder`, and is an error without one.
    """
    if text.startswith("/"):
        return _unix(text, folder)
    family, colon, rest = text.partition(":")
    if colon and family in ("unix", "local"):
        return _unix(rest, folder)
    if not colon or family not in ("inet", "inet6"):
        raise ValueError('must be "inet:PORT@ADDRESS", "inet6:PORT@ADDRESS" or "unix:/PATH"')
    port, at, host = rest.partition("@")
    if not at and (meant := _turned_round(family, rest)):
        raise ValueError(f'must be "{family}:PORT@ADDRESS"; you mean "{meant}"?')
    if at and not host:
        raise ValueError('no address after "@"; leave "@" out to listen on all interfaces')
    _check_host(family, host)
    return Address("inet" if family == "inet" else "inet6", _bare(host), port_number(port))


def _turned_round(family: str, rest: str) -> str:
    """What was meant by ``ADDRESS:PORT``, the notation of other keys; "" when it is not that."""
    host, colon, port = rest.rpartition(":")
    meant = f"{family}:{port}@{_bare(host)}"
    try:
        return meant if colon and str(parse_address(meant)) == meant else ""
    except ValueError:
        return ""


def _unix(text: str, folder: Path | None) -> Address:
    if not text or text.endswith("/"):
        raise ValueError("the path of the socket is missing")
    if not text.isprintable():
        raise ValueError("the path of the socket holds a control character")
    path = absolute(text, folder)
    if len(str(path).encode()) > MAX_SOCKET_PATH:
        raise ValueError(f"the path of the socket is over {MAX_SOCKET_PATH} bytes")
    return Address("unix", path=path)


def absolute(text: str, folder: Path | None) -> Path:
    """The path, starting at `folder` when it is relative; raises ValueError."""
    path = Path(text)
    if path.is_absolute():
        return path
    if folder is None:
        raise ValueError("a relative path needs a config file whose folder it starts at")
    return folder / path


def _check_host(family: str, host: str) -> None:
    """A host must be an address of the family, or a name to look up."""
    try:
        version = ipaddress.ip_address(_bare(host)).version if host else 0
    except ValueError:
        # Digits and dots that are no address are a slip, not a name.
        if not HOST_NAME.fullmatch(host) or re.fullmatch(r"[0-9.]+", host):
            raise ValueError('what follows "@" is no address or host name') from None
        return
    if version and version != (4 if family == "inet" else 6):
        raise ValueError(f"the address is IPv{version}: write inet: for IPv4 and inet6: for IPv6")


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def port_number(text: str) -> int:
    """Read a port; raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError("the port must be a number from 1 to 65535")
    return int(text)


def parse_endpoint(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Read ``ADDRESS[:PORT]``, an IPv6 address with a port in brackets; raises ValueError."""
    help_text = 'must be an address and a port, such as "127.0.0.1:9893" or "[::1]:9893"'
    if default_port is not None:
        help_text = 'must be an address, such as "127.0.0.1", "127.0.0.1:5353" or "[::1]:53"'
    host, rest = _host_and_rest(text)
    if host != "localhost":
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            raise ValueError(help_text) from None
    if not rest and default_port is not None:
        return host, default_port
    if not rest.startswith(":"):
        raise ValueError(help_text)
    return host, port_number(rest[1:])


def _host_and_rest(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        return (host if closed else text), rest
    if text.count(":") > 1:
        return text, ""
    host, colon, port = text.partition(":")
    return host, colon + port
