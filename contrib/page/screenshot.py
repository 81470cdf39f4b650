"""`make screenshot`: contrib/guides/page.png, the page of two MX hosts after an hour of mail.

Nothing in it is drawn by hand: two daemons with the sample's rules and one store judge the clients of a
small made-up internet, and Chromium takes the picture. Their clock runs fast (libfaketime): the hour is over
in five minutes. Addresses and domains are those set aside for tests and examples; what lists say of them
is made up.
"""

from __future__ import annotations

import io
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from PIL import Image

from hybridgrey.store.binary import bundled_directory
from parts.base import LOOPBACK, accepts, free_port, wait_until
from parts.browser import Browser
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "contrib/guides/page.png"
LARGEST = 100_000  # bytes
SIZE = (1200, 1000)
FAST = 12
HOUR = 3600
RATE = 0.28  # clients a second of the fast clock
RULES = (
    {"name": "blocklists", "dns": ["bl.mailspike.net", "zen.spamhaus.org"], "action": "reject"},
    {
        "name": "allowlists",
        "dns": ["rep.mailspike.net=127.0.0.[18..20]", "list.dnswl.org=127.0.[0..255].[2..3]"],
        "action": "accept",
    },
    {"name": "the rest", "action": "greylist"},
)
LISTED = {f"198.18.{net}.{host}": "127.0.0.2" for net in range(12) for host in range(1, 40)}
ALSO_LISTED = {address: code for address, code in LISTED.items() if int(address.split(".")[2]) % 3}
KNOWN = {f"203.0.113.{host}": "127.0.5.3" for host in range(1, 30)}
PEOPLE = ("ann", "bob", "info", "sales", "office", "eve")


def fast_clock() -> Mapping[str, str]:
    """The environment of a process whose clock is at the end of the hour when that is over here."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    behind = HOUR - HOUR / FAST
    # Waits and timeouts are real ones
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"-{behind:.0f} x{FAST}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


class FastRedis(Redis):
    """A store by the fast clock, by which the greylist goes. Debian's Redis cannot, for its jemalloc."""

    def command(self) -> list[str | Path]:
        return [bundled_directory() / "valkey-server", *self._arguments]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **fast_clock()}


class FastDaemon(Daemon):
    """A daemon by the fast clock."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **fast_clock()}


@dataclass(frozen=True, slots=True, order=True)
class Client:
    """Who comes, and when, in seconds of the fast clock."""

    at: float
    address: str
    sender: str
    recipient: str
    tries: int


def population(chance: random.Random) -> Iterator[Client]:
    """An hour of clients: what a host sees that is on the Internet."""
    at = 0.0
    while at < HOUR:
        wave = 1 + 0.6 * math.sin(at / HOUR * 9) + (1.2 if 1900 < at < 2300 else 0)
        at += chance.expovariate(RATE * wave)
        to = f"{chance.choice(PEOPLE)}@example.org"
        kind = chance.random()
        if kind < 0.42:
            yield Client(
                at,
                chance.choice(list(LISTED)),
                f"{chance.choice('abcdef')}@spam{chance.randrange(9)}.example",
                to,
                1,
            )
        elif kind < 0.70:
            yield Client(at, chance.choice(list(KNOWN)), f"news@shop{chance.randrange(6)}.example", to, 1)
        elif kind < 0.86:  # not yet on a list, and never seen again
            address = f"198.19.{chance.randrange(100, 256)}.{chance.randrange(1, 255)}"
            yield Client(at, address, f"{chance.randrange(10**6)}@bot.example", to, 1)
        else:
            net = chance.randrange(40)
            yield Client(at, f"198.19.{net}.25", f"joe@firm{net}.example", to, 4)


def attempt(daemon: Daemon, client: Client) -> bool:
    """One recipient; whether it is to come back."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("unknown", client.address)
        peer.helo(f"mail.{client.sender.partition('@')[2]}")
        peer.mail(f"<{client.sender}>")
        reply = peer.rcpt(f"<{client.recipient}>")
        peer.quit()
    return reply.code == "450"


def mail(daemons: Sequence[Daemon]) -> None:
    """The hour. Servers that queue come back after one, seven and fifteen minutes, and some more."""
    chance = random.Random(20)  # noqa: S311
    waiting = sorted(population(chance))
    start = time.monotonic()
    while waiting:
        client = heappop(waiting)
        time.sleep(max(0.0, start + client.at / FAST - time.monotonic()))
        if attempt(chance.choice(daemons), client) and client.tries > 1:
            later = client.at + (60, 420, 900)[4 - client.tries] + chance.random() * 60
            heappush(
                waiting, Client(later, client.address, client.sender, client.recipient, client.tries - 1)
            )
        if client.at > HOUR:
            return


def settings(redis: Redis, dns: FakeDns, name: str, port: int) -> dict[str, Any]:
    return {
        "hostname": name,
        "store": {"url": redis.unix_url, "timeout": "5s"},  # on a busy machine, too
        "dns": {"nameservers": [dns.address]},
        "greylist": {"delay": "5m", "retry_window": "2d", "lifetime": "36d"},
        "metrics": {"listen": f"{LOOPBACK}:{port}"},
        "rule": list(RULES),
    }


def take(url: str) -> bytes:
    """The page as it is now, a small PNG."""
    with Browser() as browser, browser.visit(f"{url}/#span=hour", size=SIZE, timezone_id="UTC") as visit:
        visit.shown("hour ")
        shot = visit.page.screenshot()
    # Few colours: it is text on a light ground
    image = Image.open(io.BytesIO(shot)).convert("RGB").quantize(96, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    image.save(packed, "PNG", optimize=True)
    return packed.getvalue()


def main() -> int:
    """Exit status 1 when the picture is too large for a README."""
    print(f"An hour of mail, in {HOUR // FAST // 60} minutes …", flush=True)
    with FakeDns() as dns, FastRedis() as redis, ExitStack() as stack:
        dns.zone("bl.mailspike.net", listed=ALSO_LISTED)
        dns.zone("zen.spamhaus.org", listed=LISTED, text="https://check.example/")
        dns.zone("rep.mailspike.net", listed=dict(list(KNOWN.items())[::3]))
        dns.zone("list.dnswl.org", listed=KNOWN)
        ports = [free_port() for _ in range(2)]
        names = ("mx1.example.org", "mx2.example.org")
        daemons = [
            stack.enter_context(FastDaemon(settings(redis, dns, name, port)))
            for name, port in zip(names, ports, strict=True)
        ]
        for port in ports:
            wait_until(lambda port=port: accepts((LOOPBACK, port)), "the page is served")  # type: ignore[misc]  # an int
        mail(daemons)
        picture = take(f"http://{LOOPBACK}:{ports[0]}")
    PICTURE.write_bytes(picture)
    print(f"{PICTURE.relative_to(ROOT)}: {len(picture):,} bytes")
    return int(len(picture) > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
