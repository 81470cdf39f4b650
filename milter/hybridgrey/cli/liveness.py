"""What running daemons say of themselves: their counters and their health, over HTTP.

Counters are those of `series`, read from ``/metrics`` and added up over hosts; ``/healthz`` says what is
wrong.  A redirect is never followed: the password is for the place that the admin has named, and a daemon
sends none.
"""

from __future__ import annotations

import base64
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from hybridgrey.address import endpoint_text
from hybridgrey.cleaning import clean
from hybridgrey.config.load import Config
from hybridgrey.metrics.prometheus import PREFIX

TIMEOUT = 5.0  # s
HANDOVER = 0.3  # s; after a reload the port changes hands, and for a moment nobody has it
MAX_BYTES = 16 * 2**20
_NO_USER = "the URL must not have a user or a password: that is [metrics] password of the configuration"
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Host:
    """One daemon: `problems` is empty when it is well; `error` says why it could not be asked."""

    url: str
    error: str = ""
    problems: tuple[str, ...] = ()
    version: str = ""
    samples: Mapping[tuple[str, Labels], float] = field(default_factory=dict)

    @property
    def reload_ok(self) -> bool:
        """Whether its last reload went well, as far as it tells."""
        return self.samples.get(("config_reload_ok", ()), 1.0) == 1.0

    @property
    def mode(self) -> str:
        """Whether its verdicts are carried out; "" where it does not tell."""
        enforced = self.samples.get(("enforced", ()))
        return "" if enforced is None else "enforce" if enforced else "observe"

    @property
    def loaded(self) -> float:
        """When its configuration was taken, Unix seconds; 0 where it does not tell."""
        return self.value("config_last_reload_success_timestamp_seconds")

    @property
    def started(self) -> float:
        """When it started, Unix seconds; 0 where it does not tell."""
        return self.value("start_time_seconds")

    def value(self, name: str, **labels: str) -> float:
        """One number; 0 where the daemon has none."""
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)


def url_of(config: Config) -> str | None:
    """Where this host's daemon serves its metrics; None when they are off."""
    listen = config.metrics.listen
    if listen is None:
        return None
    host = _ANY.get(listen[0], listen[0])
    return f"http://{endpoint_text(host, listen[1])}"


def ask(url: str, password: str = "") -> Host:
    """Ask one daemon; the password is only told to one that wants it. ``mx2:9893`` means http."""
    url = url.rstrip("/").removesuffix("/metrics")
    if "://" not in url:
        url = f"http://{url}"
    scheme, _, place = url.partition("://")
    if "@" in place.partition("/")[0]:
        return Host(f"{scheme}://{place.rpartition('@')[2]}", error=_NO_USER)
    try:
        families = text_string_to_metric_families(get(f"{url}/metrics", password))
        samples: dict[tuple[str, Labels], float] = {}
        version = ""
        for sample in (one for family in families for one in family.samples):
            if sample.name == f"{PREFIX}build_info":
                version = sample.labels["version"]
            samples[sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))] = sample.value
        health = get(f"{url}/healthz").splitlines()
    except RefusedError as error:
        return Host(url, error=str(error))
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return Host(url, error=getattr(reason, "strerror", None) or str(reason) or type(reason).__name__)
    except ValueError as error:
        return Host(url, error=f"no metrics there: {error}")
    if not version:
        return Host(url, error="no hybridgrey there")
    return Host(url, "", tuple(line for line in health if line != "ok"), version, samples)


def added(hosts: Iterable[Host]) -> Host:
    """The counters of several daemons as if they were one."""
    total: dict[tuple[str, Labels], float] = {}
    for host in hosts:
        for key, value in host.samples.items():
            total[key] = total.get(key, 0.0) + value
    return Host("", samples=total)


class RefusedError(Exception):
    """The daemon wants a password, or another one, or it is no daemon."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as it is; urllib would send the password along to wherever it leads."""

    def redirect_request(self, *_arguments: object) -> None:
        """Follow none."""


def get(url: str, password: str = "", *, told: bool = False) -> str:
    """A page; that of an unhealthy daemon comes with status 503."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("the URL must begin with http:// or https://")
    try:
        with _open(_request(url, password if told else "")) as page:
            return str(page.read(MAX_BYTES).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:
            return error.read(MAX_BYTES).decode("utf-8", "replace")
        if error.code == http.HTTPStatus.UNAUTHORIZED:
            if password and not told:
                return get(url, password, told=True)
            fault = "is not the right one there" if password else "is not set here, but there"
            raise RefusedError(f"[metrics] password {fault}") from None
        if error.code // 100 == 3:
            where = error.headers.get("Location", "")
            raise RefusedError(f"redirects elsewhere, which is not followed: {clean(where)}") from None
        raise


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    """The answer; who is refused asks once more."""
    # A daemon is no web site.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        page: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ConnectionRefusedError):
            raise
        time.sleep(HANDOVER)
        page = opener.open(request, timeout=TIMEOUT)
    return page


def _request(url: str, password: str) -> urllib.request.Request:
    """HTTP Basic (RFC 7617), where any user name will do."""
    coded = base64.b64encode(f":{password}".encode(errors="surrogateescape")).decode()
    headers = {"Authorization": f"Basic {coded}"} if password else {}
    return urllib.request.Request(url, headers=headers)  # noqa: S310 (checked above)
