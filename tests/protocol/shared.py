"""What tests of the protocol share: an engine that is fed, and frames of an MTA."""

from __future__ import annotations

import struct

from hybridgrey.protocol import replies
from hybridgrey.protocol.connection import Connection
from hybridgrey.protocol.terms import Terms
from parts.milterpeer import framed, strings

ALL_ACTIONS, ALL_STEPS = 0x1FF, 0x1FFFFF


def offer(version=6, actions=ALL_ACTIONS, steps=ALL_STEPS):
    return framed(b"O" + struct.pack("!III", version, actions, steps))


def macros(letter, *pairs):
    return framed(b"D" + letter + strings(*pairs))


def connect(address="192.0.2.1", family="4", host="mail.example.org", port=40000):
    data = strings(host) + family.encode()
    return framed(b"C" + data + struct.pack("!H", port) + strings(address))


def helo(name="client.test"):
    return framed(b"H" + strings(name))


def mail(*texts):
    return framed(b"M" + strings(*(texts or ("<a@example.org>",))))


def rcpt(*texts):
    return framed(b"R" + strings(*(texts or ("<b@example.net>",))))


ABORT, QUIT, QUIT_NC, EOM, DATA = framed(b"A"), framed(b"Q"), framed(b"K"), framed(b"E"), framed(b"T")


def opened(*, actions=0, steps=0, macros=None, data=b""):
    """A connection that has agreed on everything asked for, with its answer taken away."""
    connection = Connection(Terms(actions=actions, steps=steps, macros=macros))
    connection.receive(offer() + data)
    connection.next_event()
    connection.sent(len(connection.output))
    return connection


def all_events(connection, reply=replies.CONTINUE, look=None):
    """Every event there is, each answered at once; `look` is called with the connection at each."""
    found = []
    while (event := connection.next_event()) is not None:
        found.append(event if look is None else (event, look(connection)))
        if connection.due:
            connection.reply(reply)
    return found
