"""Where the content scanner is: ``spamd:inet:783@127.0.0.1``, ``spamd:unix:/path``, ``rspamd:http://127.0.0.1:11333``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from hybridgrey.config.sockets import Address, parse_address, port_number

_HELP: Final = (
    'must be "spamd:inet:783@127.0.0.1", "spamd:unix:/path" or "rspamd:http://127.0.0.1:11333"; "": none'
)


@dataclass(frozen=True, slots=True)
class Scanner:
    """A scanner: what it speaks, and where."""

    kind: Literal["spamd", "rspamd"]
    address: Address


def parse(text: str, folder: Path | None = None) -> Scanner | None:
    """Read the place of a scanner, None for ""; raises ValueError.  A relative path starts at `folder`."""
    if not text:
        return None
    kind, _, rest = text.partition(":")
    if kind == "spamd" and rest:
        address = parse_address(rest, folder)
        if address.family != "unix" and not address.host:
            raise ValueError('names no host; write "spamd:inet:783@127.0.0.1"')
        return Scanner("spamd", address)
    if kind == "rspamd" and rest:
        return Scanner("rspamd", _of_url(rest))
    raise ValueError(_HELP)


def _of_url(text: str) -> Address:
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ValueError(_HELP) from None
    if url.scheme != "http" or not host or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError(_HELP)
    if url.username is not None or url.password is not None:
        raise ValueError("takes no user or password")
    family = "inet6" if ":" in host else "inet"
    return parse_address(f"{family}:{port_number(str(port or 11333))}@{host}")
