"""A nameserver that refuses every question at once, for daemons whose tests say nothing of the DNS.

A port where nobody listens will not do: the daemon asks there again until its time is up, for a nameserver
may be back in a moment.  There is one for the whole run; it ends with the process.
"""

from __future__ import annotations

import functools
import socket
import threading

import dns.exception
import dns.message
import dns.rcode

from parts.base import LOOPBACK


@functools.cache
def address() -> str:
    """What `nameservers` takes; it answers from now on."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((LOOPBACK, 0))
    threading.Thread(target=_serve, args=(sock,), name="refusing nameserver", daemon=True).start()
    return f"{LOOPBACK}:{sock.getsockname()[1]}"


def _serve(sock: socket.socket) -> None:
    while True:
        asked, peer = sock.recvfrom(4096)
        try:
            answer = dns.message.make_response(dns.message.from_wire(asked))
        except dns.exception.DNSException:
            continue
        answer.set_rcode(dns.rcode.REFUSED)
        sock.sendto(answer.to_wire(), peer)
