"""See hybridgrey at work: a private Postfix, two sample DNS lists and the daemon, all on loopback ports.

Six clients send mail to it, the unknown one three times. What was said is printed, then what the daemon
logged, as a table. Everything that was started is ended again; the machine's own Postfix is not touched.
Needs root, for Postfix. `make demo` runs it; the servers are the tests' (tests/parts).
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from parts import postfix
from parts.base import PartError
from parts.daemon import Daemon
from parts.postfix import Postfix
from parts.rbldnsd import Rbldnsd, ip4set

DELAY = 3  # seconds; 300 where it is not a demonstration
BLOCKLIST, ALLOWLIST = "bl.demo.test", "wl.demo.test"
LISTS = {
    BLOCKLIST: ip4set("192.0.2.20", "192.0.2.40", "192.0.2.50", text="Spam from $, see http://bl.demo.test/"),
    ALLOWLIST: ip4set("192.0.2.30", "192.0.2.40", value="127.0.5.2"),
}
ALLOWED_BY_HAND = "192.0.2.50          # a customer on a bad provider\n.friends.example\n"


@dataclass(frozen=True, slots=True)
class Visit:
    """One client that sends one message."""

    who: str
    address: str
    host: str = ""
    wait: float = 0.0

    @property
    def recipient(self) -> str:
        return f"{self.who.partition(',')[0].replace(' ', '.')}@demo.test"


VISITS = [
    Visit("allowed by hand", "192.0.2.50"),
    Visit("allowed by host name", "192.0.2.60", "mx.friends.example"),
    Visit("blocklisted", "192.0.2.20"),
    Visit("allowlisted", "192.0.2.30"),
    Visit("on both lists", "192.0.2.40"),
    Visit("unknown, first attempt", "192.0.2.10"),
    Visit("unknown, too early", "192.0.2.10", wait=1),
    Visit("unknown, after the delay", "192.0.2.10", wait=DELAY),
]


def settings(lists: Rbldnsd, folder: Path) -> dict[str, Any]:
    """The sample config's hierarchy, with the demo's lists, a short delay and an embedded store."""
    return {
        "store": {"url": f"embedded:{folder}"},
        "dns": {"nameservers": [lists.address]},
        "greylist": {"delay": f"{DELAY}s"},
        "rule": [
            {"name": "manual", "clients": ["file:allow_clients"], "action": "accept"},
            {"name": "blocklists", "dns": [BLOCKLIST], "action": "reject"},
            {"name": "allowlists", "dns": [f"{ALLOWLIST}=127.0.[0..255].[2..3]"], "action": "accept"},
            {"name": "the rest", "action": "greylist"},
        ],
    }


class Paper:
    """Standard output, with colours where it is a terminal."""

    def __init__(self) -> None:
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def ink(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def title(self, text: str) -> None:
        print("\n" + self.ink(text, "1"))

    def answer(self, text: str) -> str:
        return self.ink(text, {"2": "32", "4": "33", "5": "31"}.get(text[:1], "0"))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns as wide as their longest cell."""
        lines = [list(head), *map(list, rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        for number, line in enumerate(lines):
            cells = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            print("  " + (self.ink(cells.rstrip(), "1") if number == 0 else cells.rstrip()))


def visit(paper: Paper, mta: Postfix, one: Visit) -> None:
    """Hold one SMTP dialogue and print it."""
    if one.wait:
        print(f"\n  … {one.wait:g} second{'' if one.wait == 1 else 's'} later")
        time.sleep(one.wait)
    paper.title(f"{one.address} {one.host}".strip() + f": {one.who}")
    with mta.client(one.address, one.host) as client:
        client.ehlo("mail.sender.test")
        client.dialogue.clear()
        content = f"Subject: {one.who}\r\n\r\nHello.\r\n"
        passed = client.transaction("joe@sender.test", [one.recipient], content)[-1].code == 250
        for side, line in client.dialogue:
            # Two columns: what the client says, and what it hears.
            wrapped = textwrap.wrap(line, 92, subsequent_indent=" " * 10) or [""]
            for text in wrapped:
                print(f"    {'>' if side == 'C' else ' '} {text if side == 'C' else paper.answer(text)}")
        client.quit()
    if passed:
        mail = mta.sink.wait(one.recipient)
        for name in ("X-Greylist", "Authentication-Results"):
            for value in mail.header(name):
                print("      " + paper.ink(f"delivered with {name}: {value}", "36"))


def row(event: dict[str, Any]) -> list[str]:
    """One verdict of the log, for the table."""
    lists = ", ".join(f"{name} {' '.join(codes)}" for name, codes in event["lists"].items() if codes)
    return [
        event["client"],
        event["recipient"].strip("<>"),
        event["rule"],
        event["action"],
        event["state"] or "",
        lists,
        f"{event['wait_ms']:.1f}",
        event.get("reply", "")[:9],
    ]


def show() -> None:
    """The whole demonstration."""
    paper = Paper()
    print("Starting rbldnsd, hybridgrey with its embedded store, and Postfix …", flush=True)
    with Rbldnsd(LISTS) as lists:
        daemon = Daemon(files={"allow_clients": ALLOWED_BY_HAND})
        daemon.configure(settings(lists, daemon.directory / "store"))
        with daemon, Postfix(daemon.spec) as mta:
            print(f"Lists at {lists.address}, milter at {daemon.spec}, SMTP at 127.0.0.1:{mta.port}.")
            for one in VISITS:
                visit(paper, mta, one)
            events = daemon.await_events("verdict", len(VISITS))
            paper.title("What hybridgrey logged")
            head = ("client", "recipient", "rule", "action", "greylist", "lists", "wait ms", "reply")
            paper.table(head, map(row, events))
    print("\nAll that was started has been ended.")


def main() -> int:
    """Exit status 0 when it could be shown."""
    if reason := postfix.missing():
        print(f"demo: {reason}", file=sys.stderr)
        return 1
    try:
        show()
    except PartError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
