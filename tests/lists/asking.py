"""Look-ups as the tests here make them, and what came of them, in a word."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterator

from hybridgrey.lists import lookup, zones
from hybridgrey.lists.awaited import run
from hybridgrey.lists.lookup import Lookup
from hybridgrey.lists.recall import Recalled
from hybridgrey.lists.resolver import Resolver
from hybridgrey.policy.judge import Action, Answer, Rule
from hybridgrey.policy.pattern import ListEntry
from parts.fakedns import FakeDns
from parts.rbldnsd import Rbldnsd
from parts.unbound import Unbound

CLIENT = "192.0.2.1"
LISTED = {CLIENT: "127.0.0.2"}


class Told:
    """What a reporter was told, in order, repetitions left out."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def failing(self, kind: str, **detail: object) -> None:
        self._add(f"{kind} failing: {detail['error']}")

    def recovered(self, kind: str) -> None:
        self._add(f"{kind} recovered")

    def _add(self, event: str) -> None:
        if event not in self.events[-1:]:
            self.events.append(event)


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def build(*names: str, action: Action = Action.REJECT) -> tuple[zones.Zone, ...]:
    return zones.build([Rule(name="x", action=action, lists=tuple(map(ListEntry.parse, names)))], {})


def resolver(
    servers: list[tuple[str, int]] | FakeDns | Rbldnsd | Unbound,
    *names: str,
    action: Action = Action.REJECT,
    **options: object,
) -> Resolver:
    """A resolver for lists, `bl.test` if none is named."""
    if not isinstance(servers, list):
        servers = [(servers.host, servers.port)]
    return Resolver(build(*names or ("bl.test",), action=action), servers, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def asked(by: Resolver, client: str = CLIENT) -> Iterator[Lookup | Recalled]:
    """A look-up at all lists."""
    found = lookup.ask(by, packed(client), by.zones)
    try:
        yield found
    finally:
        found.close()


def gather(found: Lookup | Recalled, by: Resolver) -> dict[str, Answer]:
    """Wait for all lists."""
    while missing := frozenset(by.zones) - found.answers.keys():
        run(found.collect(missing))
    return found.answers


def answers(by: Resolver, client: str = CLIENT) -> dict[str, Answer]:
    with asked(by, client) as found:
        return gather(found, by)


def shown(answer: Answer) -> str:
    """Codes, whose order is the server's whim, or error of an answer."""
    return answer.error or " ".join(sorted(map(zones.code_text, answer.codes))) or "no"


def one(by: Resolver, client: str = CLIENT) -> str:
    """What the only list says."""
    (answer,) = answers(by, client).values()
    return shown(answer)


def reason(found: Lookup | Recalled) -> str:
    """The text of the only list."""
    zone, text = run(found.await_text(["bl.test"]))
    assert zone == "bl.test"
    return text


def sockets() -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
    return sum(link.startswith("socket:") for link in links)


def sockets_are_closed(found: Lookup) -> bool:
    return found._exchange.deaf and not found._exchange.open
