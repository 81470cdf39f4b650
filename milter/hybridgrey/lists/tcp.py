"""A list's answer over TCP, where the datagram came truncated (RFC 1035 section 4.2.1).

A module of its own, imported at the first truncated answer: answers of lists hardly ever are, and
dnspython's way to ask costs every process 3 MiB and the start a tenth of a second.
"""

from __future__ import annotations

import dns.exception
import dns.message
import dns.name
import dns.query

from hybridgrey.lists import question


def ask(name: bytes, server: tuple[str, int], seconds: float) -> question.Reply | None:
    """Ask for the A records of a name, uncompressed labels, within `seconds`; None if no answer came."""
    host, port = server
    try:
        message = dns.message.make_query(dns.name.from_wire(name, 0)[0], "A")
        reply = dns.query.tcp(message, host, seconds, port)
    except dns.exception.Timeout:
        return None
    except (OSError, EOFError, ValueError, dns.exception.DNSException) as e:
        return question.Reply(error=f"TCP: {type(e).__name__}")
    return question.read_message(reply)
