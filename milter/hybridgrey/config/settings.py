"""The keys of the config file, rules apart: types, defaults, and what each may hold.

A field's default is what the file would say (``"5m"``, not 300): the sample file is compared with it, and
the effective configuration is shown in the same notation.  Each check stands with its own field, so that one
wrong key hides no other; a check that needs two keys stands with the later one.

Terms: a section is a table of the file, as ``[dns]``; the folder is that of the config file.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from hybridgrey.clientaddress import ClientReader, check_nat64
from hybridgrey.config import durations, scanner, sockets, store_url, textfile, words
from hybridgrey.policy.pattern import Pattern, normal_zone

# libmilter takes 980 bytes, but an SMTP reply line has at most 512 (RFC 5321 section 4.5.3.1.5).
MAX_TEXT = 400
SECONDS_FIELD = "{seconds}"


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, hide_input_in_errors=True
    )


def typed(value: object) -> Any:  # noqa: ANN401 (the field's own type follows from its validator)
    """A default in the notation of the file."""
    return value


def folder_of(info: ValidationInfo) -> Path | None:
    """The folder where relative paths start."""
    folder = (info.context or {}).get("folder")
    return folder if isinstance(folder, Path) else None


def reader_of(info: ValidationInfo) -> textfile.Read:
    """What reads the files that an entry names."""
    read: textfile.Read = (info.context or {}).get("read", textfile.read)
    return read


def reply_text(text: str, klass: str, *, seconds: bool = False) -> str:
    """Check the text of an SMTP reply whose code begins with the digit `klass`; raises ValueError."""
    if not text.strip() or len(text) > MAX_TEXT:
        raise ValueError(f"must have 1 to {MAX_TEXT} characters")
    if not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII on one line (RFC 5321 section 4.2)")
    rest = text.replace(SECONDS_FIELD, "") if seconds else text
    if "{" in rest or "}" in rest:
        raise ValueError("may hold braces only as {seconds}" if seconds else "may hold no braces")
    if re.match(r"[2-5][0-9][0-9][ -]", text):
        raise ValueError(
            "must not begin with a reply code; only an enhanced code such as 4.7.1 may stand there"
        )
    enhanced = re.match(r"([0-9]+)\.[0-9]+\.[0-9]+\b", text)
    if enhanced and not re.match(rf"{klass}\.[0-9]{{1,3}}\.[0-9]{{1,3}} \S", text):
        raise ValueError(f"the enhanced code must be {klass}.x.y, then a space and the text (RFC 3463)")
    return text


def without_controls(text: str) -> str:
    """Refuse control characters, which have no place in any name; raises ValueError."""
    if not text.isprintable():
        raise ValueError("holds a control character")
    return text


def _sequence(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _socket_mode(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('must be an octal mode in quotes, such as "0660"')
    return int(value, 8)


def _hostname(text: str) -> str:
    if text and not re.fullmatch(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", text):
        raise ValueError("is no host name")
    return text


def _nameserver(value: object) -> tuple[str, int]:
    if not isinstance(value, str) or value == "localhost":
        raise ValueError("must be an address in quotes")
    return sockets.parse_endpoint(value, 53)


def _nat64(value: object) -> IPv6Network:
    if not isinstance(value, str):
        raise ValueError('must be a network in quotes, such as "64:ff9b::/96"')  # noqa: TRY004 (as below)
    try:
        network = IPv6Network(value, strict=False)
    except ValueError:
        raise ValueError('must be an IPv6 network, such as "64:ff9b::/96"') from None
    if str(network.network_address) != str(IPv6Network(value.partition("/")[0]).network_address):
        raise ValueError(f"has bits set after its prefix; {network} is meant?")
    check_nat64(network)
    return network


def _metrics_endpoint(value: object) -> tuple[str, int] | None:
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 (pydantic collects ValueError)
    return sockets.parse_endpoint(value) if value else None


def _pattern(value: object) -> Pattern:
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 (pydantic collects ValueError)
    return Pattern.parse(value)


def _health(value: object) -> bool:
    if value not in ("on", "off"):
        raise ValueError('must be "on" or "off"')
    return value == "on"


def _test_point(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError('must be an address such as "127.0.0.2"') from None


Text = Annotated[str, AfterValidator(without_controls)]


def _user(name: str) -> str:
    """An error, not a warning: the daemon would refuse to start as nobody knows whom."""
    try:
        return pwd.getpwnam(name).pw_name if name else name
    except KeyError:
        raise ValueError(f"no user {name!r} on this system") from None


class Store(Section):
    """``[store]``: where triplets are kept."""

    url: SecretStr = typed("embedded:/var/lib/hybridgrey")
    on_failure: Literal["accept", "tempfail"] = "accept"
    timeout: Annotated[float, BeforeValidator(durations.between("1ms", "30s"))] = typed("500ms")
    key_secret: SecretStr = typed("")

    @property
    def embedded(self) -> Path | None:
        """The folder of an embedded store, None for a server elsewhere."""
        return store_url.embedded(self.url.get_secret_value())

    @field_validator("url")
    @classmethod
    def _url(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        return SecretStr(store_url.check(url.get_secret_value(), folder_of(info)))


class Dns(Section):
    """``[dns]``: whom to ask, how long to wait, and for which IPv6 clients an IPv4 address is asked about."""

    nameservers: Annotated[
        tuple[Annotated[tuple[str, int], PlainValidator(_nameserver)], ...], BeforeValidator(_sequence)
    ] = typed([])
    timeout: Annotated[float, BeforeValidator(durations.between("1ms", "30s"))] = typed("2s")
    nat64: Annotated[
        tuple[Annotated[IPv6Network, PlainValidator(_nat64)], ...], BeforeValidator(_sequence)
    ] = typed(["64:ff9b::/96"])

    @property
    def clients(self) -> ClientReader:
        """How clients' addresses are read."""
        return ClientReader(self.nat64)


class Greylist(Section):
    """``[greylist]``: the terms on which unknown senders get in."""

    delay: Annotated[int, BeforeValidator(durations.whole("1s", "1d"))] = typed("5m")
    retry_window: Annotated[int, BeforeValidator(durations.whole("2s", "60d"))] = typed("2d")
    lifetime: Annotated[int, BeforeValidator(durations.whole("2s", "3650d"))] = typed("36d")
    ipv4_prefix: int = Field(24, ge=0, le=32)
    ipv6_prefix: int = Field(64, ge=0, le=128)
    auto_allow_after: int = Field(5, ge=0, le=1_000_000)
    auto_allow_interval: Annotated[int, BeforeValidator(durations.whole("0s", "30d"))] = typed("1h")
    max_waiting: int = Field(1000, ge=0, le=1_000_000)
    sender_pools: bool = True
    code: Literal["450", "451"] = "450"
    text: str = "4.2.0 Greylisted, please try again in {seconds} seconds"

    @field_validator("retry_window", "lifetime")
    @classmethod
    def _after_delay(cls, seconds: int, info: ValidationInfo) -> int:
        delay = info.data.get("delay")
        if delay is not None and seconds <= delay:
            raise ValueError(f"must be longer than delay ({durations.show(delay)})")
        return seconds

    @field_validator("text")
    @classmethod
    def _text(cls, text: str) -> str:
        return reply_text(text, "4", seconds=True)


class Spf(Section):
    """``[spf]``: prefix lengths of the widest networks by which SPF proves who a client is."""

    widest_ipv4: int = Field(14, ge=8, le=32)
    widest_ipv6: int = Field(32, ge=16, le=128)


class Correspondents(Section):
    """``[correspondents]``: for how long (seconds) and of how many it is remembered whom we write to."""

    lifetime: Annotated[int, BeforeValidator(durations.whole("1h", "3650d"))] = typed("180d")
    max_recipients: int = Field(20, ge=1, le=10_000)
    max_daily: int = Field(200, ge=1, le=1_000_000)


class Content(Section):
    """``[content]``: the content scanner; `timeout` in seconds, `max_size` in bytes."""

    scanner: str = ""
    timeout: Annotated[float, BeforeValidator(durations.between("100ms", "5m"))] = typed("10s")
    max_size: Annotated[int, BeforeValidator(words.size("1k", "64m"))] = typed("512k")

    @field_validator("scanner")
    @classmethod
    def _scanner(cls, text: str, info: ValidationInfo) -> str:
        scanner.parse(text, folder_of(info))
        return text


class Headers(Section):
    """``[headers]``: what is added to accepted messages, and taken out of them."""

    greylist: bool = True
    authentication_results: bool = True
    remove_forged: bool = True
    score: bool = False


class Metrics(Section):
    """``[metrics]``: where the page and Prometheus find them (None is off), and what is kept in the store."""

    listen: Annotated[tuple[str, int] | None, PlainValidator(_metrics_endpoint)] = typed("127.0.0.1:9893")
    history: bool = True
    keep_verdicts: Annotated[int, BeforeValidator(durations.whole("0s", "3650d"))] = typed("7d")
    password: SecretStr = typed("")


class Log(Section):
    """``[log]``: how much is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Zone(Section):
    """``[zones."NAME"]``: what is particular to one list; `lists.zones` merges it with what is built in."""

    label: Annotated[str, Field(max_length=253), AfterValidator(without_controls)] = ""
    error_codes: Annotated[
        tuple[Annotated[Pattern, PlainValidator(_pattern)], ...], BeforeValidator(_sequence)
    ] = typed([])
    health: Annotated[bool, PlainValidator(_health)] = typed("on")
    listed: Annotated[str, AfterValidator(_test_point)] | None = None
    unlisted: Annotated[str, AfterValidator(_test_point)] | None = None


class Settings(Section):
    """Everything but the rules."""

    listen: str = "inet:8893@127.0.0.1"
    socket_mode: Annotated[int, PlainValidator(_socket_mode)] = typed("0666")
    socket_group: Text = ""
    engine: Literal["auto", "libmilter", "native"] = "auto"
    workers: int = Field(0, ge=0, le=256)
    pin_workers: bool = True
    nice: int = Field(-10, ge=-20, le=19)
    drain_timeout: Annotated[float, BeforeValidator(durations.between("0s", "1h"))] = typed("30s")
    user: Annotated[Text, AfterValidator(_user)] = ""
    pid_file: Text = ""
    mode: Literal["enforce", "observe"] = "enforce"
    hostname: Annotated[str, AfterValidator(_hostname)] = ""
    store: Store = typed({})
    dns: Dns = typed({})
    greylist: Greylist = typed({})
    spf: Spf = typed({})
    correspondents: Correspondents = typed({})
    content: Content = typed({})
    headers: Headers = typed({})
    metrics: Metrics = typed({})
    log: Log = typed({})
    zones: Annotated[
        Mapping[Annotated[str, BeforeValidator(normal_zone)], Zone], AfterValidator(MappingProxyType)
    ] = typed({})

    @field_validator("listen")
    @classmethod
    def _listen(cls, listen: str, info: ValidationInfo) -> str:
        sockets.parse_address(listen, folder_of(info))
        return listen
