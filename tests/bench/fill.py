"""Stores with many triplets: written as greylist.lua would have, without waiting for each answer."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from bench import population

BATCH = 20_000
LIFETIME = 36 * 86400


def triplets(store: Path, count: int, first: int = 0) -> None:
    """Write passed triplets of unknown clients into the server at a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(store))
        sock.sendall(b"CLIENT REPLY OFF\r\n")
        for batch in _commands(first, count):
            sock.sendall(batch)
        sock.sendall(b"CLIENT REPLY ON\r\n")
        with sock.makefile("rb") as answers:
            answers.readline()


def _commands(first: int, count: int) -> Iterator[bytes]:
    value = b"-%d" % (int(time.time()) - 86400)
    tail = b"$%d\r\n%s\r\n$2\r\nEX\r\n$%d\r\n%d\r\n" % (len(value), value, len(str(LIFETIME)), LIFETIME)
    for begin in range(first, first + count, BATCH):
        keys = [_key(number) for number in range(begin, min(begin + BATCH, first + count))]
        yield b"".join([b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n%b" % (len(key), key, tail) for key in keys])


def _key(number: int) -> bytes:
    """The key of a triplet whose client, sender and recipient are about as long as real ones."""
    network = population.address("unknown", 15_000_000 - number % 10_000_000).rpartition(".")[0]
    sender, recipient = f"sender{number}@example{number % 997}.org", f"user{number % 499}@example.net"
    return f"hg1:{{{network}.0/24}}:{sender}:{recipient}".encode()


def information(store: Path, section: str) -> dict[str, str]:
    """What INFO says of a section."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, contextlib.ExitStack() as stack:
        sock.connect(str(store))
        sock.sendall(f"INFO {section}\r\n".encode())
        answer = stack.enter_context(sock.makefile("rb"))
        text = answer.read(int(answer.readline()[1:])).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
