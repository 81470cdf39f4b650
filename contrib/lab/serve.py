"""`make lab`: a small internet to play in, until Ctrl-C.

Client networks, three MX hosts with a hybridgrey each, Redis under Sentinel, DNS lists: all in network
namespaces, so that nothing of the machine is touched, and all ended with this process. Commands are typed at
the prompt, or given to `contrib/lab/lab` in another terminal. The servers are the tests' (tests/parts).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, cast

with contextlib.suppress(ImportError):
    import readline  # noqa: F401  (gives input() its editing)

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from client import END, FOLDER, SOCKET, open_folder
from playground import DELAY, PICTURE, SETTINGS, Playground

from parts import mxrow
from parts.base import PartError
from parts.mxrow import Row

LAB = Path(__file__).with_name("lab")
GREETING = f"""
{PICTURE}
Greylisted mail passes after {DELAY} s. Type a command here, or in another terminal: contrib/lab/lab COMMAND

    send office mx1         a message from a sender whom nobody knows; then at mx2, before {DELAY} s and after
    send botnet mx3         one from a listed client;  send bank mx2 -6: an allowed one, by IPv6
    explain 198.18.0.1      what a client would get, and why
    kill-redis              and look with `status` and `send` how the row goes on
    cut mx2 back            mx2 without Redis; heal mx2
    spam                    a thousand clients of a botnet
    page                    where a browser of this machine finds the web page: {{page}}
    log mx1, mail, map, shell mx1, help

Ctrl-C ends it all.
"""


class _Session(socketserver.StreamRequestHandler):
    """One command from `lab`."""

    def handle(self) -> None:
        server = cast("_Server", self.server)
        # Whoever went away does not want the rest.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # And who has only looked whether anybody is here says nothing.
            if line := self.rfile.readline():
                status = server.playground.perform(json.loads(line), self._say)
                self._say(f"{END}{status}")

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode(errors="backslashreplace"))


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    playground: Playground


@contextlib.contextmanager
def served(playground: Playground) -> Iterator[None]:
    """Answer `lab` while this lasts."""
    Path(SOCKET).unlink(missing_ok=True)
    with _Server(SOCKET, _Session) as server:
        server.playground = playground
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            Path(SOCKET).unlink(missing_ok=True)


def converse() -> NoReturn:
    """Take commands from the terminal, or wait where there is none; Ctrl-C, end of file or `quit` end it."""
    if not sys.stdin.isatty():
        while True:
            signal.pause()
    while True:
        try:
            words = shlex.split(input("lab> "))
        except ValueError as error:
            print(f"lab: {error}")
            continue
        except EOFError:
            raise KeyboardInterrupt from None
        if words[:1] in (["quit"], ["exit"]):
            raise KeyboardInterrupt
        if words:
            _type(words)


def _type(words: list[str]) -> None:
    """Run one command; while it runs, Ctrl-C is for it alone."""
    # Not SIG_IGN, which the command would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        subprocess.run([LAB, *words])
    finally:
        signal.signal(signal.SIGINT, before)


def already() -> bool:
    """Whether a lab runs from this tree."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(SOCKET) == 0


def ended(_number: int, _frame: object) -> NoReturn:
    """SIGTERM and a closed terminal end the lab as Ctrl-C does."""
    raise KeyboardInterrupt


def _play(playground: Playground) -> None:
    """Greet, and answer until the user ends it."""
    with served(playground):
        print(GREETING.format(page=playground.page("mx1")), flush=True)
        try:
            converse()
        finally:
            # A second Ctrl-C must not leave half of it.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            print("\nEnding it …", flush=True)


def main() -> int:
    """Exit status 0 when it was ended by the user."""
    if reason := mxrow.missing():
        print(f"lab: {reason}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    FOLDER.mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o700)
    open_folder(FOLDER)
    if already():
        print("lab: one runs already", file=sys.stderr)
        return 1
    print("Starting a small internet; this takes some ten seconds …", flush=True)
    try:
        with contextlib.suppress(KeyboardInterrupt), Row(SETTINGS) as row:
            _play(Playground(row))
    except PartError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    print("All that was started has been ended.")
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
