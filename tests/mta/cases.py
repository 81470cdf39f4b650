"""One recipient each, for every MTA: who comes, and what the hierarchy says to it.

The world of these cases is `ZONES`, `FILES` and `RULES`; each case has a recipient of its own (its name), so
that none disturbs another's triplet. `wanted` is a regular expression for the whole answer at RCPT; Sendmail
begins its 4yz answers with the recipient, which the tests take off. `rule` is the one that the log must name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parts.rbldnsd import Dataset, ip4set, ip6trie
from parts.sasl import LOGIN

BLOCK, KEYED, ALLOW = "bl.test", "0123456789abcdef.zen.test", "list.dnswl.org"
LABEL = "zen.example.org"

BLOCKED4 = (
    "192.0.2.10 192.0.2.12 192.0.2.14 192.0.2.17 192.0.2.20 192.0.2.21 192.0.2.22 192.0.2.23 192.0.2.24"
)
TEXT = "Listed 100%, see http://bl.test/?ip=$"
ZONES: dict[str, Dataset | list[Dataset]] = {
    BLOCK: [
        ip4set(*BLOCKED4.split(), text=TEXT),
        ip6trie("2001:db8:b10c::/48", text=TEXT),
    ],
    KEYED: ip4set("192.0.2.11", "192.0.2.18 :127.0.0.12:", value="127.0.0.4", text="key $"),
    ALLOW: [
        ip4set(
            "192.0.2.12 :127.0.5.2:",
            "192.0.2.13 :127.0.5.1:",
            "192.0.2.15 :127.0.5.2:",
            "192.0.2.16 :127.0.5.3:",
            "192.0.2.17 :127.0.5.1:",
        ),
        ip6trie("2001:db8:a110::/48 :127.0.5.2:"),
    ],
}
FILES = {
    "allow_clients": """\
192.0.2.20                 # by address
198.51.100.64/28
mail.example.org
.trusted.example.net
2001:db8:600d::/48
!198.51.100.70
""",
    "access_map": """\
# a Postfix access map, as it is
192.0.2.23      OK
198.51.100.96/28 permit
access.example.org OK
""",
}
MANUAL = {"name": "manual", "clients": ["file:allow_clients", "file:access_map"], "action": "accept"}
BLOCKLISTS = {"name": "blocklists", "dns": [BLOCK, f"{KEYED}=127.0.0.[2..11]"], "action": "reject"}
ALLOWLISTS = {"name": "allowlists", "dns": [f"{ALLOW}=127.0.[0..255].[2..3]"], "action": "accept"}
REST = {"name": "the rest", "action": "greylist"}
AUTHENTICATED = {"name": "authenticated", "authenticated": True, "action": "accept"}
RULES = [AUTHENTICATED, MANUAL, BLOCKLISTS, ALLOWLISTS, REST]


def settings(redis: Any, resolver: Any, rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The daemon's configuration for this world."""
    return {
        "store": {"url": redis.unix_url},
        "dns": {"nameservers": [resolver.address], "timeout": "5s"},
        "greylist": {"delay": "1m", "auto_allow_after": 0},
        "zones": {KEYED: {"label": LABEL}},
        "rule": rules,
    }


PASS = r"250 .*"
GREY = r"450 4\.2\.0 Greylisted, please try again in (60|[1-5]\d) seconds"


def blocked(address: str, label: str = BLOCK, text: str = "") -> str:
    """The answer to a listed client, as a regular expression."""
    shown = address.replace(".", r"\.")
    text = text or rf"Listed 100%, see http://bl\.test/\?ip={shown}"
    return rf"554 5\.7\.1 Service unavailable; client \[{shown}\] blocked using {label}; {text}"


@dataclass(frozen=True, slots=True)
class Case:
    """One client with one recipient."""

    name: str
    address: str
    wanted: str
    rule: str
    host: str = ""
    forged: bool = False
    sender: str = "a@sender.example"
    login: str = ""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def recipient(self) -> str:
        """A recipient that no other case has."""
        return f"{self}@rcpt.example"


CASES = [
    Case("logged in", "203.0.113.8", PASS, "authenticated", login=LOGIN),
    Case("logged in six", "2001:db8:1::8", PASS, "authenticated", login=LOGIN),
    Case("logged in and blocklisted", "192.0.2.10", PASS, "authenticated", login=LOGIN),
    Case("logged in forged", "203.0.113.6", PASS, "authenticated", "x.example.org", forged=True, login=LOGIN),
    Case("unknown", "203.0.113.1", GREY, "the rest"),
    Case("unknown null sender", "203.0.113.2", GREY, "the rest", sender=""),
    Case("unknown six", "2001:db8:1::1", GREY, "the rest"),
    Case("blocklisted", "192.0.2.10", blocked("192.0.2.10"), "blocklists"),
    Case("blocklisted null sender", "192.0.2.10", blocked("192.0.2.10"), "blocklists", sender=""),
    Case("blocklisted keyed", "192.0.2.11", blocked("192.0.2.11", LABEL, r"key 192\.0\.2\.11"), "blocklists"),
    Case("blocklisted code of no matter", "192.0.2.18", GREY, "the rest"),
    Case("blocklisted six", "2001:db8:b10c::1", blocked("2001:db8:b10c::1"), "blocklists"),
    Case("allowlisted two", "192.0.2.15", PASS, "allowlists"),
    Case("allowlisted three", "192.0.2.16", PASS, "allowlists"),
    Case("allowlisted one", "192.0.2.13", GREY, "the rest"),
    Case("allowlisted six", "2001:db8:a110::1", PASS, "allowlists"),
    Case("on both", "192.0.2.12", blocked("192.0.2.12"), "blocklists"),
    Case("on both low", "192.0.2.17", blocked("192.0.2.17"), "blocklists"),
    Case("manual address", "192.0.2.20", PASS, "manual"),
    Case("manual cidr", "198.51.100.65", PASS, "manual"),
    Case("manual cidr excluded", "198.51.100.70", GREY, "the rest"),
    Case("manual host", "192.0.2.21", PASS, "manual", host="mail.example.org"),
    Case("manual host in capitals", "203.0.113.9", PASS, "manual", host="Mail.Example.ORG"),
    Case("manual host six", "2001:db8:1::5", PASS, "manual", host="mail.example.org"),
    Case("manual domain", "192.0.2.22", PASS, "manual", host="mx1.trusted.example.net"),
    Case("manual domain itself", "203.0.113.3", GREY, "the rest", host="trusted.example.net"),
    Case("manual domain alike", "203.0.113.4", GREY, "the rest", host="untrusted.example.net"),
    Case("manual six", "2001:db8:600d::1", PASS, "manual"),
    Case("access address", "192.0.2.23", PASS, "manual"),
    Case("access cidr", "198.51.100.97", PASS, "manual"),
    Case("access host", "203.0.113.5", PASS, "manual", host="access.example.org"),
    Case("forged host", "203.0.113.6", GREY, "the rest", host="mail.example.org", forged=True),
    Case("forged six", "2001:db8:1::6", GREY, "the rest", host="mail.example.org", forged=True),
    Case("forged domain", "203.0.113.7", GREY, "the rest", host="x.trusted.example.net", forged=True),
    Case(
        "forged and blocklisted",
        "192.0.2.24",
        blocked("192.0.2.24"),
        "blocklists",
        host="mail.example.org",
        forged=True,
    ),
]
