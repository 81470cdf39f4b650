"""The command `lab`: tells the lab that `make lab` has started what to do, and shows what comes of it.

Only the standard library, so that it starts quickly. For what is run on a host (shell, run, explain, zones,
greylist) this process enters the host's namespaces itself, so that questions and whole screens work.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

FOLDER = Path(os.environ.get("HYBRIDGREY_LAB") or Path(__file__).resolve().parents[2] / ".work" / "lab")
"""Where the control socket is; two labs need two."""
SOCKET = "control"
NOT_THERE = 69  # EX_UNAVAILABLE
END = "\0"
"""Ends the output; the exit status follows."""
NETWORKS = ("office", "pool", "elsewhere", "bank", "botnet")
MX_HOSTS = ("mx1", "mx2", "mx3")
HOST_COMMANDS = ("explain", "zones", "greylist", "check-config")
"""Commands of hybridgrey that are run on an MX host."""


class UnavailableError(Exception):
    """No lab runs, or it has no such host; the text says which."""


def open_folder(folder: Path) -> None:
    """Make the folder of the control socket the working directory: a socket's path must be short."""
    os.chdir(folder)


def ask(request: dict[str, Any]) -> socket.socket:
    """Send a request; the socket from which the answer can be read."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        open_folder(FOLDER)
        connection.connect(SOCKET)
    except PermissionError:
        raise UnavailableError("needs root, as the lab itself") from None
    except OSError:
        raise UnavailableError("no lab runs; start one with: make lab") from None
    connection.sendall(json.dumps(request).encode() + b"\n")
    return connection


def show(request: dict[str, Any]) -> int:
    """Print the answer as it comes; its exit status."""
    with ask(request) as connection, connection.makefile(encoding="utf-8", errors="replace") as answer:
        for line in answer:
            text, end, status = line.partition(END)
            print(text, end="", flush=True)
            if end:
                return int(status)
    print("lab: the lab has ended", file=sys.stderr)
    return NOT_THERE


def find(host: str) -> dict[str, Any]:
    """How to enter a host."""
    with ask({"do": "where", "host": host}) as connection, connection.makefile() as answer:
        text, _, status = answer.read().partition(END)
    if status != "0":
        raise UnavailableError(text.strip().removeprefix("lab: ") or "the lab has ended")
    found: dict[str, Any] = json.loads(text)
    return found


def enter(host: str, words: Sequence[str]) -> NoReturn:
    """Become a command on a host, or a shell; `hybridgrey` is the lab's, with the host's configuration."""
    where = find(host)
    command = list(words) or ["/bin/sh"]
    if command[0] == "hybridgrey":
        command = [where["hybridgrey"], *command[1:], "-c", where["config"]]
    line = ["nsenter", "--target", str(where["pid"]), "--net", "--uts", "--mount", "--pid", "--", *command]
    os.execvpe("nsenter", line, {**os.environ, **where["environment"]})  # noqa: S606


def _mail_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What sends mail."""
    send = commands.add_parser("send", help="send a message and show the dialogue")
    send.add_argument("network", choices=NETWORKS)
    send.add_argument("mx", choices=MX_HOSTS)
    send.add_argument(
        "--from", dest="sender", metavar="ADDRESS", help="default: joe@NETWORK.test; '' for bounces"
    )
    send.add_argument("--to", dest="recipient", metavar="ADDRESS", default="ann@example.test")
    send.add_argument("--address", metavar="IP", help="of the client; any of the network's")
    send.add_argument("--helo", metavar="NAME", help="default: mail.NETWORK.test")
    send.add_argument("-6", dest="version", action="store_const", const=6, default=4, help="by IPv6")
    spam = commands.add_parser(
        "spam", help="a run of a botnet against all MX hosts; the lower half is listed"
    )
    spam.add_argument("--count", type=int, default=1000, metavar="CLIENTS")
    spam.add_argument("-6", dest="version", action="store_const", const=6, default=4, help="by IPv6")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="lab",
        description="Play with the internet that `make lab` has started.",
        epilog="Try: lab send office mx1, then the same at mx2, and again after some seconds. "
        "Then: lab kill-redis; lab cut mx2 back; lab spam; lab status.",
    )
    commands = whole.add_subparsers(dest="do", required=True, metavar="COMMAND")
    commands.add_parser("help", help="show this")
    commands.add_parser("map", help="what runs where")
    commands.add_parser("status", help="hosts, stores, and what all daemons have counted")
    _mail_commands(commands)
    for name, what in (("cut", "pull a host's cable"), ("heal", "put it back")):
        cable = commands.add_parser(name, help=f"{what}: front (to the world) or back (to Redis)")
        cable.add_argument("host", metavar="HOST")
        cable.add_argument("segment", nargs="?", choices=("front", "back", "wan"), help="default: all it has")
    commands.add_parser("kill-redis", help="kill -9 the Redis that is the primary now")
    commands.add_parser("start-redis", help="start the killed one again")
    log = commands.add_parser("log", help="the verdicts of an MX host")
    log.add_argument("host", choices=MX_HOSTS)
    log.add_argument(
        "--all", dest="everything", action="store_true", help="everything that its daemon logs, as it stands"
    )
    log.add_argument("--mta", action="store_true", help="what its MTA logs")
    log.add_argument("-n", dest="lines", type=int, default=15, metavar="LINES")
    commands.add_parser("mail", help="what has arrived in the mailbox")
    page = commands.add_parser("page", help="the address of the web page, for a browser of this machine")
    page.add_argument("host", nargs="?", choices=MX_HOSTS, default="mx1")
    run = commands.add_parser("run", help="run a command on a host: lab run mx1 postqueue -p")
    run.add_argument("host", metavar="HOST")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    shell = commands.add_parser("shell", help="a shell on a host")
    shell.add_argument("host", metavar="HOST")
    for name in HOST_COMMANDS:
        commands.add_parser(name, help=f"hybridgrey {name}, on mx1")
    return whole


def main(arguments: Sequence[str]) -> int:
    """Exit status: the command's, or 69 when no lab runs."""
    whole = parser()
    # Past argparse, which would take their options for its own.
    passed = arguments[:1] and arguments[0] in HOST_COMMANDS
    given = {"do": arguments[0]} if passed else vars(whole.parse_args(arguments))
    command = given["do"]
    try:
        if command == "help":
            whole.print_help()
            return 0
        if command in ("run", "shell"):
            enter(given["host"], given.get("words", []))
        if command in HOST_COMMANDS:
            enter("mx1", ["hybridgrey", *arguments])
        return show(given)
    except UnavailableError as error:
        print(f"lab: {error}", file=sys.stderr)
        return NOT_THERE
    except BrokenPipeError:  # as in: lab log mx1 | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
