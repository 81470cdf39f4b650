"""An answer over TCP, where the datagram came truncated (RFC 1035 section 4.2.2, RFC 7766).

A connection for each question: hardly any answer is so long, and the resolver is near.
"""

from __future__ import annotations

import os
import socket
import time

from hybridgrey.lists import question
from hybridgrey.lists.question import LISTS, Form, Reply
from hybridgrey.lists.upstream import Server


def ask(asked: bytes, server: Server, seconds: float, form: Form = LISTS) -> Reply | None:
    """Ask a question, in wire format, within `seconds`; None if no answer came in time.

    Any other failure is a reply with an error.  The query goes out as one to a list does, whatever the form:
    without EDNS, which means nothing here.
    """
    deadline = time.monotonic() + seconds
    ident = os.urandom(2)
    query = ident + question.HEADER + asked
    try:
        with socket.socket(server[0], socket.SOCK_STREAM) as sock:
            _limit(sock, deadline)
            sock.connect(server[1])
            sock.sendall(len(query).to_bytes(2, "big") + query)
            size = int.from_bytes(_exactly(sock, 2, deadline), "big")
            message = _exactly(sock, size, deadline)
    except TimeoutError:
        return None
    except (OSError, EOFError) as e:
        return Reply(error=f"TCP: {type(e).__name__}")
    if message[:2] != ident or not question.answers(message, asked):
        return Reply(error="TCP: an answer to another question")
    reply = form.read(message, asked)
    return Reply(error="TCP: truncated") if reply.truncated else reply


def _exactly(sock: socket.socket, size: int, deadline: float) -> bytes:
    """So many octets; raises EOFError or TimeoutError."""
    came = bytearray()
    while len(came) < size:
        _limit(sock, deadline)
        part = sock.recv(size - len(came))
        if not part:
            raise EOFError
        came += part
    return bytes(came)


def _limit(sock: socket.socket, deadline: float) -> None:
    """Wait no longer than until then; raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)
