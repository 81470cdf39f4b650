"""A spam run: many clients at a time, each from an address of its own, with one try at one recipient.

    python spamrun.py --network 198.18.0.0/15 --count 3000 10.25.0.11 10.25.0.12

Run as a program on the host that has the network behind it. Clients go to the targets in turn and take
addresses that are spread over the whole network. Prints one JSON object: how often which answer came to the
recipient, as "TARGET CODE", and the addresses of clients that were let in.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from parts.namespace import IP_FREEBIND, IPV6_FREEBIND
from parts.smtp import Client

PATIENCE = 60.0  # s


def address(network: str, number: int, count: int) -> str:
    """The address of a client; no two of `count` clients share one, nor (in small runs) a /24 or /64."""
    parsed = ipaddress.ip_network(network)
    return str(parsed[number * (parsed.num_addresses // count) + 1])


def attempt(source: str, target: str, sender: str, recipient: str) -> str:
    """One client's session: the code of the answer to its recipient, or what went wrong."""
    try:
        with _connected(source, target) as client:
            client.ehlo("localhost")
            client.mail(sender)
            answer = client.rcpt(recipient)
            client.send("QUIT")
    except OSError as error:
        return type(error).__name__
    return str(answer.code)


def _connected(source: str, target: str) -> Client:
    six = ":" in source
    connection = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    level, option = (socket.IPPROTO_IPV6, IPV6_FREEBIND) if six else (socket.IPPROTO_IP, IP_FREEBIND)
    try:
        connection.setsockopt(level, option, 1)
        connection.bind((source, 0))
        connection.connect((target, 25))
    except OSError:
        connection.close()
        raise
    return Client((target, 25), sock=connection, timeout=PATIENCE)


def main(arguments: Sequence[str]) -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", metavar="ADDRESS", help="of MX hosts, all of one IP version")
    parser.add_argument("--network", required=True, help="where the clients are")
    parser.add_argument("--count", type=int, default=1000, help="of clients")
    parser.add_argument("--concurrency", type=int, default=24)
    options = parser.parse_args(arguments)

    def one(number: int) -> tuple[str, str, str]:
        source = address(options.network, number, options.count)
        target = options.targets[number % len(options.targets)]
        sender = f"win{number}@prizes{number % 97}.test"
        return source, target, attempt(source, target, sender, f"user{number % 499}@example.test")

    with ThreadPoolExecutor(options.concurrency) as pool:
        done = list(pool.map(one, range(options.count)))
    answers = Counter(f"{target} {code}" for _, target, code in done)
    print(json.dumps({"answers": answers, "let_in": [source for source, _, code in done if code == "250"]}))


if __name__ == "__main__":
    main(sys.argv[1:])
