"""A real rbldnsd, which serves DNS lists from text: `Rbldnsd({"bl.test": ip4set("192.0.2.1")})`.

A zone is (type, text) with rbldnsd's own dataset types (ip4set, ip4trie, ip6trie, ip6tset, dnset, generic,
combined); a bare text is an ip4set. Several data sets of one zone are given as a list. The test points of
RFC 5782 are added to ip4set and ip6trie texts, unless `test_points` is false.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence

import dns.exception
import dns.message
import dns.query

from parts.base import LOOPBACK, Part, free_port, wait_until

Dataset = str | tuple[str, str]
# rbldnsd re-reads files by their time stamps, which have a resolution of one second there.
FIRST_STAMP = 1_000_000_000


def ip4set(*rows: str, value: str = "127.0.0.2", text: str = "") -> Dataset:
    """An ip4set: rows are "ADDRESS", or "ADDRESS :CODE:TEXT"; `$` in a text is the address."""
    return ("ip4set", f":{value}:{text}\n" + "\n".join(rows) + "\n")


def ip6trie(*rows: str, value: str = "127.0.0.2", text: str = "") -> Dataset:
    """An ip6trie: rows are "NETWORK/BITS" or "NETWORK/BITS :CODE:TEXT"."""
    return ("ip6trie", f":{value}:{text}\n" + "\n".join(rows) + "\n")


class Rbldnsd(Part):
    """The server; `address` is what a stub zone or the daemon's `nameservers` takes."""

    def __init__(
        self,
        zones: Mapping[str, Dataset | Sequence[Dataset]],
        *,
        ttl: int = 60,
        test_points: bool = True,
        host: str = LOOPBACK,
    ) -> None:
        super().__init__()
        self.host, self.port, self.ttl = host, free_port(host), ttl
        self.test_points = test_points
        self.zones = {name: self._datasets(given) for name, given in zones.items()}
        self._stamp = FIRST_STAMP
        if os.geteuid() == 0:
            shutil.chown(self.directory, "rbldns")
        self._write()

    @staticmethod
    def _datasets(given: Dataset | Sequence[Dataset]) -> list[tuple[str, str]]:
        if isinstance(given, str):
            return [("ip4set", given)]
        if isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, str) for part in given):
            return [(str(given[0]), str(given[1]))]
        return [pair for one in given for pair in Rbldnsd._datasets(one)]

    def _text(self, kind: str, text: str) -> str:
        soa = f"$SOA {self.ttl} ns.test. hostmaster.test. 1 600 300 86400 {self.ttl}\n$TTL {self.ttl}\n"
        if not self.test_points:
            return soa + text
        # RFC 5782, section 5: 127.0.0.2 is listed and 127.0.0.1 is not; ::ffff:7f00:2 and ::ffff:7f00:1.
        points = {"ip4set": "127.0.0.2\n!127.0.0.1\n", "ip6trie": "::ffff:7f00:2/128\n!::ffff:7f00:1/128\n"}
        return soa + text + points.get(kind, "")

    def _write(self) -> None:
        self._stamp += 10
        for name, datasets in self.zones.items():
            for number, (kind, text) in enumerate(datasets):
                path = self.directory / f"{name}.{number}"
                # Renamed into place: rbldnsd may look while we write.
                fresh = path.with_name(path.name + ".new")
                fresh.write_text(self._text(kind, text))
                os.utime(fresh, (self._stamp, self._stamp))
                fresh.chmod(0o644)
                fresh.rename(path)

    def command(self) -> list[str]:
        words = ["rbldnsd", "-n", "-b", f"{self.host}/{self.port}", "-c", "0", "-t", str(self.ttl)]
        if os.geteuid() == 0:
            words += ["-u", "rbldns", "-w", str(self.directory)]
        for name, datasets in self.zones.items():
            words += [f"{name}:{kind}:{name}.{number}" for number, (kind, _) in enumerate(datasets)]
        return words

    def ready(self) -> bool:
        query = dns.message.make_query(next(iter(self.zones)), "SOA")
        with contextlib.suppress(dns.exception.Timeout, OSError):
            dns.query.udp(query, self.host, timeout=0.3, port=self.port)
            return True
        return False

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def lookup(self, name: str, kind: str = "A") -> list[str]:
        """The texts of the answer's records."""
        answer = dns.query.udp(dns.message.make_query(name, kind), self.host, timeout=5, port=self.port)
        return sorted(record.to_text() for rrset in answer.answer for record in rrset)

    def update(self, zones: Mapping[str, Dataset | Sequence[Dataset]]) -> None:
        """Replace the data of some zones and return when rbldnsd has loaded it."""
        self.zones |= {name: self._datasets(given) for name, given in zones.items()}
        loads = self.log_text().count("zones reloaded")
        self._write()
        self.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log_text().count("zones reloaded") > loads, "rbldnsd reloaded")
