"""Store URLs of the config file: check their shape, and show them without the password.

The forms: ``embedded:/path``, ``redis://[user:password@]host[:port][/db]``, ``rediss://`` (TLS),
``unix://[user:password@]/path[?db=N]``, ``sentinel://a:26379,b:26379/mymaster/0``,
``cluster://a:6379,b:6379``; options after a question mark are those of `_TLS` and the form's own.

No error repeats any part of a URL, because a mistyped one may have its password anywhere.  That is also why
no library parses them here: the errors of urllib quote what they cannot read.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from hybridgrey.config.sockets import HOST_NAME, absolute, port_number

STORE_FORMS = (
    "embedded:/PATH, redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix:///PATH?db=N, "
    "sentinel://HOST:PORT,HOST:PORT/NAME/DB or cluster://HOST:PORT,HOST:PORT"
)
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SECRET_OPTION = re.compile(r"(?<=password=)[^&]+", re.IGNORECASE)
_USERINFO = re.compile(r"[^:/?#@,]*(?::[^:/?#@,]*)?")


EMBEDDED = "embedded:"


def embedded(url: str) -> Path | None:
    """The folder of an embedded store, None for a server elsewhere; `url` as `check` gives it."""
    return Path(url.removeprefix(EMBEDDED)) if url.startswith(EMBEDDED) else None


def check(text: str, folder: Path | None = None) -> str:
    """Check the shape of a store URL and give it back with an absolute path; raises ValueError."""
    if not text.isprintable() or " " in text:
        raise ValueError("holds a space or a control character; write it as % and two hexadecimal digits")
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "embedded":
        if not rest or rest.startswith("//"):
            raise ValueError("must be embedded:/PATH")
        return f"{EMBEDDED}{absolute(rest, folder)}"
    form = _FORMS.get(scheme)
    if form is None or not rest.startswith("//"):
        raise ValueError(f"is no store URL; its forms are {STORE_FORMS}")
    form(rest[2:])
    return text


def _after_userinfo(rest: str) -> str:
    """What follows the user and password."""
    userinfo, at, after = rest.rpartition("@")
    if at and not _USERINFO.fullmatch(userinfo):
        raise ValueError('":", "/", "?", "#", "@" and "," in a user name or password must be %-encoded')
    return after


def _check_host(text: str) -> None:
    host, colon, port = text.rpartition(":") if re.search(r":[^]:]*$", text) else (text, "", "")
    if not host:
        raise ValueError("the host is missing")
    if colon:
        port_number(port)
    if host.startswith("["):
        if not host.endswith("]") or not _is_ipv6(host[1:-1]):
            raise ValueError("what stands in brackets is no IPv6 address")
    elif not HOST_NAME.fullmatch(host):
        raise ValueError("bad host name; an IPv6 address needs brackets")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _check_database(text: str) -> None:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError("the database must be a number")


def _before_query(text: str, allowed: tuple[str, ...] = ()) -> str:
    """What stands before the query, when that has allowed options only."""
    if "#" in text:
        raise ValueError('a "#" has no place in it; in a password it must be %-encoded')
    before, mark, query = text.partition("?")
    for option in query.split("&") if mark else ():
        name, _, value = option.partition("=")
        if name not in allowed:
            known = f"; known: {', '.join(allowed)}" if allowed else ""
            raise ValueError(f"has an unknown option after the question mark{known}")
        if name == "db":
            _check_database(value)
    return before


def _check_redis(rest: str, options: tuple[str, ...] = ("db",)) -> None:
    host, slash, database = _before_query(_after_userinfo(rest), options).partition("/")
    _check_host(host)
    if slash and database:
        _check_database(database)


def _check_rediss(rest: str) -> None:
    _check_redis(rest, ("db", *_TLS))


def _check_unix(rest: str) -> None:
    path = _before_query(_after_userinfo(rest), ("db",))
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("must be unix:///PATH, with three slashes")


def _check_sentinel(rest: str) -> None:
    options = ("ssl", "sentinel_username", "sentinel_password", *_TLS)
    hosts, _, where = _before_query(_after_userinfo(rest), options).partition("/")
    for host in hosts.split(","):
        _check_host(host)
    name, slash, database = where.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ValueError("the name of the primary is missing: sentinel://HOST:PORT,HOST:PORT/NAME/DB")
    if slash and database:
        _check_database(database)


def _check_cluster(rest: str) -> None:
    hosts, _, where = _before_query(_after_userinfo(rest), ("ssl", *_TLS)).partition("/")
    for host in hosts.split(","):
        _check_host(host)
    if where not in ("", "0"):
        raise ValueError("a cluster has no databases: leave out what follows the hosts")


_FORMS = {
    "redis": _check_redis,
    "rediss": _check_rediss,
    "unix": _check_unix,
    "sentinel": _check_sentinel,
    "cluster": _check_cluster,
}


def secrets(text: str) -> tuple[str, ...]:
    """What must not be shown of a URL, well-formed or not: passwords, or all of a user part without one.

    Without a ``//`` all of it may be one.
    """
    _, slashes, rest = text.partition("//")
    if not slashes:
        return () if text.startswith(EMBEDDED) else (text,)
    userinfo = rest.rpartition("@")[0]
    password = userinfo.partition(":")[2]
    return tuple(s for s in (userinfo, password, *_SECRET_OPTION.findall(text)) if s)


def mask(text: str, stars: str = "********") -> str:
    """A well-formed store URL with its passwords masked; a user name is shown."""
    text = _SECRET_OPTION.sub(stars, text)
    head, at, tail = text.rpartition("@")
    if not at:
        return text
    scheme, _, userinfo = head.partition("//")
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}//{f'{user}:{stars}' if colon else stars}@{tail}"
