"""What other greylisters keep on disk: postgrey's Berkeley DB, sqlgrey's SQLite, milter-greylist's text dump.

Each reader gives the memories of a file as a stream, and counts in a `Tally` what it had to leave out.  What
the others keep differs from ours, so not all of it can be a triplet:

* postgrey drops a sender's ``+extension`` and folds its numbers; such a sender is found again where our own
  folding gives the same.  With ``--privacy`` there are only hashes, which nobody can read.
* sqlgrey forgets the recipient when a sender has passed: the sender's network is allowed instead.
* milter-greylist writes when an entry ends; when it was last seen follows from its ``autowhite`` time.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from hybridgrey.greylist import normalise
from hybridgrey.migrate.restore import Memory

HASHED: Final = "hashed by --privacy"
UNREADABLE: Final = "not understood"
UNCERTAIN: Final = "senders with numbers that postgrey dropped; found again only if long"
WHITELISTS: Final = (
    "a whitelist is known by its name, such as whitelist_clients or postgrey_whitelist_recipients"
)

# With --lookup-by-host postgrey puts the prefix length of a single address behind it.
_TRIPLET = re.compile(r"(?:([^/:]+)(?:/32)?|([^/]*:[^/]*)(?:/128)?)/(.*?@[^/]*|[^@/]*)/(.+)", re.DOTALL)
_ESCAPE = re.compile(rb"\\([0-9a-f]{2}|\\)")
_TIMES = re.compile(r"([0-9]{1,12}),([0-9]{1,12})")
# A path may have blanks and the sign of a comment in it; the comment comes after the time.
_PATH = r'(<(?:"(?:[^"\\]|\\.)*"|[^">])*>|[^<\s]\S*)'
_DUMPED = re.compile(rf"(\S+)\s+{_PATH}\s+{_PATH}\s+([0-9]{{1,12}})(?:\s+(AUTO|TARPIT\S*))?(?:\s*#.*)?")

Tally = Counter[str]


class PeerError(Exception):
    """A file that cannot be read; the text says why and what to do."""


def dump_berkeley(path: Path) -> Iterator[bytes]:
    """The lines of ``db_dump`` for a Berkeley DB, of its running environment too.

    postgrey's files are behind its log while it runs, and db_dump alone would miss what is only there.  So
    the file and its log are copied and brought up to date as after a backup (db_recover -c); the original is
    not touched.  Raises PeerError.
    """
    dump, recover = _tool("db_dump"), _tool("db_recover")
    with tempfile.TemporaryDirectory(prefix="hybridgrey-") as folder:
        # The order of a hot backup: databases before the log that knows better.
        for file in (path, *sorted(path.parent.glob("log.*[0-9]"))):
            shutil.copy(file, folder)
        if any(Path(folder).glob("log.*")):
            _finished([recover, "-c", "-h", folder])
        command = [dump, str(Path(folder) / path.name)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None  # noqa: S101 (for the type checker)
            yield from process.stdout
            if process.wait():
                raise PeerError(f"{path}: db_dump failed; {WHITELISTS}")


def _tool(name: str) -> str:
    for known in (name, f"db5.3_{name[3:]}", f"db53_{name[3:]}"):
        if found := shutil.which(known):
            return found
    raise PeerError(
        f"{name} is not installed: install db-util, or import the output of db_dump from elsewhere"
    )


def _finished(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(f"{Path(command[0]).name} failed: {' '.join(done.stderr.split())}")


def pairs(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Keys and values of the output of ``db_dump``, in its forms print and bytevalue; raises PeerError."""
    printed: bool | None = None
    key: str | None = None
    begun = False
    for line in lines:
        text = line.rstrip(b"\r\n")
        if not begun:
            if text.startswith(b"format="):
                printed = text == b"format=print"
            begun = text == b"HEADER=END"
        elif text == b"DATA=END":
            return
        elif text.startswith(b" "):
            datum = _datum(text[1:], printed=bool(printed))
            if key is None:
                key = datum
            else:
                yield key, datum
                key = None
    raise PeerError("is no complete output of db_dump" if begun else "is no output of db_dump")


def _datum(text: bytes, *, printed: bool) -> str:
    if printed:
        raw = _ESCAPE.sub(lambda m: b"\\" if m[1] == b"\\" else bytes.fromhex(m[1].decode()), text)
    else:
        try:
            raw = bytes.fromhex(text.decode("ascii", "replace"))
        except ValueError:
            raise PeerError("has a damaged line") from None
    return raw.decode("utf-8", "surrogateescape")


def postgrey(
    found: Iterable[tuple[str, str]], delay: int, allowed_after: int, tally: Tally
) -> Iterator[Memory]:
    """Memories of postgrey's two databases, told apart by their keys.

    `delay` (seconds) and `allowed_after` are postgrey's own: a triplet has passed when it was seen again
    after that time, a client is allowed after so many.
    """
    for key, value in found:
        times = _TIMES.match(value)
        if re.fullmatch(r"[0-9a-f]{40}", key):
            tally[HASHED] += 1
        elif times is None:
            tally[UNREADABLE] += 1
        elif triplet := _TRIPLET.fullmatch(key):
            first, last = int(times[1]), int(times[2])
            client, sender, recipient = triplet[1] or triplet[2], triplet[3], triplet[4]
            if _is_address(client):
                tally[UNCERTAIN] += _is_uncertain(sender)
                yield Memory(client, sender, recipient, first, last, passed=last - first >= delay)
            else:
                tally[UNREADABLE] += 1
        elif not _is_address(key):
            tally[UNREADABLE] += 1
        elif int(times[1]) >= allowed_after:
            yield Memory(key, None, None, int(times[2]), int(times[2]))
        else:
            tally["clients not allowed there yet"] += 1


def _is_uncertain(sender: str) -> bool:
    """Whether postgrey put ``#`` for a number that would be kept here if it is short."""
    return "#" in sender and normalise.sender(sender) != normalise.sender(sender.replace("#", "7"))


def sqlgrey(path: Path, tally: Tally) -> Iterator[Memory]:
    """Memories of sqlgrey's SQLite file; raises PeerError."""
    if not path.is_file():
        raise PeerError(f"{path}: no such file")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            yield from _sqlgrey(connection, tally)
    except sqlite3.Error as error:
        raise PeerError(f"{path}: {error}") from None


def _sqlgrey(connection: sqlite3.Connection, tally: Tally) -> Iterator[Memory]:
    for table in ("from_awl", "domain_awl"):
        query = f"SELECT src, first_seen, last_seen FROM {table} ORDER BY src"  # noqa: S608 (fixed names)
        for src, first, last in connection.execute(query):
            client = _sqlgrey_client(str(src))
            if client and str(first).isdecimal() and str(last).isdecimal():
                yield Memory(client, None, None, int(first), int(last))
            else:
                tally[UNREADABLE] += 1
    query = "SELECT sender_name, sender_domain, src, rcpt, first_seen FROM connect ORDER BY src"
    for name, domain, src, recipient, first in connection.execute(query):
        client = _sqlgrey_client(str(src))
        sender = "" if name == "-undef-" else f"{name}@{domain}"
        if client and str(first).isdecimal():
            yield Memory(client, sender, str(recipient), int(first), int(first), passed=False)
        else:
            tally[UNREADABLE] += 1


def _sqlgrey_client(src: str) -> str:
    """An address of a ``src``: itself, or the first of a class C (``192.0.2``) or of an IPv6 prefix."""
    for text in (src, f"{src}.0", f"{src.rstrip(':')}::"):
        if _is_address(text):
            return text
    return ""


def milter_greylist(lines: Iterable[str], delay: int, autowhite: int, tally: Tally) -> Iterator[Memory]:
    """Memories of milter-greylist's dump file; `delay` and `autowhite` (seconds) are its own."""
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _DUMPED.fullmatch(text)
        if match is None or not _is_address(match[1]):
            tally[UNREADABLE] += 1
            continue
        client, sender, recipient, time, kind = match.groups()
        if kind == "AUTO":
            last = max(0, int(time) - autowhite)
            yield Memory(client, sender, recipient, last, last)
        elif kind:
            tally["tarpitted"] += 1
        else:
            first = max(0, int(time) - delay)
            yield Memory(client, sender, recipient, first, first, passed=False)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
