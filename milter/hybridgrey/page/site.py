"""What the keeper serves over HTTP: the page with its data, the metrics, and whether all is well.

`Site.answer` takes a path and headers and returns an `Answer`; sockets are the keeper's.  All of it only
reads.  Who may see what:

- ``/healthz`` is for everybody who can connect, ``/metrics`` too unless there is a password: neither names
  a client, sender or recipient.
- The page does.  With ``[metrics] password`` set, everything but ``/healthz`` wants it (HTTP Basic,
  RFC 7617, any user name).  Without one the page is for this host only (a loopback address), and only under a
  name that cannot be somebody else's: a site that lets its own name lead to 127.0.0.1 (DNS rebinding)
  would else read it through the browser of whoever visits it.  Nor for whom a proxy on this host asks, as far
  as that says so.

A browser gets a policy by which the page can load nothing from elsewhere, nor run what it did not bring.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import ClassVar, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl

import orjson

from hybridgrey import logs
from hybridgrey.metrics.shared import Shared
from hybridgrey.page.files import File, Files

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""What every answer says to browsers."""

PLAIN: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
FOR_EVER: Final = "private, max-age=31536000, immutable"
BUG: Final = "an error of the daemon's own; its log has more"
MAX_PARAMETERS: Final = 8
MAX_QUERY: Final = 1024  # characters
PACK_FROM: Final = 1024  # bytes; less is not worth compressing

_ONLY_HERE = (
    "the page names senders and recipients: it is served to this host only, unless [metrics] password is set"
)
_STRANGE_NAME = (
    "not served under this name: use an IP address, localhost or this host's own name, "
    "or set [metrics] password"
)


_FROM_ELSEWHERE = "asked for by way of a proxy: the page then wants [metrics] password"
_PROXIED = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"})
"""Headers by which a proxy of this host, whose own address is ours, says that somebody else is asking."""


class BadQuestionError(ValueError):
    """A question that the page would not ask."""


class GoneError(LookupError):
    """What was asked about is not, or no longer, known."""


class Data(Protocol):
    """Answers the page's questions (see `page.data.Data`)."""

    def answer(self, name: str, parameters: Mapping[str, str]) -> object:
        """What JSON is made of; raises BadQuestionError, GoneError."""


class Answer(NamedTuple):
    """An answer to a request; `headers` are those of its own."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Door:
    """Who is let in; `names` are those under which this host may be asked for, besides ``localhost``."""

    password: str = ""
    names: frozenset[str] = frozenset()

    def knows(self, authorization: str) -> bool:
        """Whether a header ``Authorization`` has the password."""
        kind, _, coded = authorization.strip().partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            said = base64.b64decode(coded, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
        # Digests: the time it takes to compare says nothing about the length either.
        wanted = hashlib.sha256(self.password.encode(errors="surrogateescape")).digest()
        return hmac.compare_digest(hashlib.sha256(said).digest(), wanted)

    def trusts(self, host: str) -> bool:
        """Whether a header ``Host`` has a name that is ours; no header is no browser."""
        name = host.strip().lower()
        bare = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() else name
        bare = bare.removesuffix(".")
        if not name or bare == "localhost" or bare.endswith(".localhost") or bare in self.names:
            return True
        try:
            ipaddress.ip_address(bare.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


class Site:
    """All that is served; `health` says why the daemon is not well, `data` makes the page's data."""

    headers: ClassVar[Mapping[str, str]] = HEADERS

    def __init__(
        self,
        shared: Shared,
        health: Callable[[], list[str]],
        *,
        door: Door | None = None,
        data: Data | None = None,
    ) -> None:
        from hybridgrey.metrics import prometheus  # only here: the master and workers do without it

        self._render = prometheus.render
        self._registry = prometheus.registry(shared)
        self._shared = shared
        self._health = health
        self._door = door or Door()
        self._data = data
        self._bug = ""

    @cached_property
    def _files(self) -> Files:
        return Files()

    def answer(self, target: str, headers: Mapping[str, str], *, loopback: bool) -> Answer:
        """Answer a GET; HEAD is the same without the body.

        headers: by their names in lower case; loopback: whether the request came in on such an address.
        """
        path, _, query = target.partition("?")
        if path == "/healthz":
            return self._healthz()
        if self._door.password and not self._door.knows(headers.get("authorization", "")):
            ask = {"WWW-Authenticate": 'Basic realm="hybridgrey", charset="UTF-8"'}
            return _text(HTTPStatus.UNAUTHORIZED, "the password is needed", ask)
        if path == "/metrics":
            content_type, body = self._render(self._registry, headers.get("accept", ""))
            return Answer(HTTPStatus.OK, content_type, body, {})
        packs = "gzip" in headers.get("accept-encoding", "").lower()
        if self._data is None or not (path == "/" or path.startswith(("/page/", "/api/"))):
            there = "/metrics and /healthz" if self._data is None else "/, /metrics and /healthz"
            return _text(HTTPStatus.NOT_FOUND, f"not found; there are {there}")
        if not self._door.password and not loopback:
            return _text(HTTPStatus.FORBIDDEN, _ONLY_HERE)
        if not self._door.password and not self._door.trusts(headers.get("host", "")):
            return _text(HTTPStatus.FORBIDDEN, _STRANGE_NAME)
        if not self._door.password and not _PROXIED.isdisjoint(headers):
            return _text(HTTPStatus.FORBIDDEN, _FROM_ELSEWHERE)
        if path.startswith("/api/"):
            return _packed(self._api(self._data, path.removeprefix("/api/"), query), packs)
        return self._file(path, packs)

    def _healthz(self) -> Answer:
        reasons = self._health()
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        # Mail goes on meanwhile, so these are no fault of the daemon's; but whoever looks is told first.
        return _text(status, "\n".join([*self._shared.notes, *reasons] or ["ok"]))

    def _file(self, path: str, packs: bool) -> Answer:
        file: File | None = self._files.index
        headers = {"Cache-Control": "no-cache"}
        if path != "/":
            file = self._files.find(path.removeprefix("/page/"))
            headers = {"Cache-Control": FOR_EVER}
        if file is None:
            return _text(HTTPStatus.NOT_FOUND, "not found, or of another version: load the page again")
        headers["Vary"] = "Accept-Encoding"
        if packs:
            headers["Content-Encoding"] = "gzip"
        return Answer(HTTPStatus.OK, file.content_type, file.packed if packs else file.plain, headers)

    def _api(self, data: Data, name: str, query: str) -> Answer:
        try:
            return _json(HTTPStatus.OK, data.answer(name, _parameters(query)))
        except BadQuestionError as error:
            return _json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except GoneError as error:
            return _json(HTTPStatus.NOT_FOUND, {"error": str(error)})
        except Exception as error:  # a bug: the page goes on, and the log says where it is
            said = f"{type(error).__name__}: {error}"
            if said != self._bug:  # an open page asks each few seconds
                logs.get().error("page failed", question=name, exc_info=error)
            self._bug = said
            return _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": BUG})


def _parameters(query: str) -> dict[str, str]:
    if len(query) > MAX_QUERY:
        raise BadQuestionError("the question is too long")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise BadQuestionError("the question has too many parts") from None
    return dict(pairs)


def _text(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, PLAIN, f"{text}\n".encode(), headers or {})


def _json(status: HTTPStatus, value: object) -> Answer:
    return Answer(status, JSON, orjson.dumps(value), {})


def _packed(answer: Answer, packs: bool) -> Answer:
    if not packs or len(answer.body) < PACK_FROM:
        return answer
    # Level 1: it is compressed for each reader anew, and a loopback is quick.
    body = gzip.compress(answer.body, 1, mtime=0)
    return answer._replace(body=body, headers={**answer.headers, "Content-Encoding": "gzip"})
