"""`twinmilter` by `hybridgrey.protocol`: twin_native.py SPEC TERMS."""

from __future__ import annotations

import sys

from hybridgrey.protocol import events, replies
from hybridgrey.protocol.connection import Connection
from hybridgrey.protocol.terms import Terms
from hybridgrey.protocol.wire import Stage
from parts import loopserver
from parts.twinmilter import Script, text_of, wanted

NAMES = {
    events.Connect: "connect",
    events.Helo: "helo",
    events.Mail: "mail",
    events.Rcpt: "rcpt",
    events.Data: "data",
    events.Header: "header",
    events.EndOfHeaders: "eoh",
    events.Body: "body",
    events.EndOfMessage: "eom",
    events.Abort: "abort",
    events.QuitNc: "close",
    events.Unknown: "unknown",
}


def terms() -> Terms:
    """What to want of the next MTA."""
    actions, steps, lists = wanted(sys.argv[2])
    return Terms(actions=actions, steps=steps, macros={Stage(one): text for one, text in lists.items()})


class Session:
    """One connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.script = Script(self.macro)

    def macro(self, name: str) -> str | None:
        """A macro as text."""
        value = self.connection.macro(name.encode())
        return None if value is None else text_of(value)

    def handle(self, event: events.Event) -> None:
        """Leave it to the script."""
        name = NAMES.get(type(event))
        if name is None:
            return
        texts = arguments(event)
        if name == "eom":
            # libmilter has two calls for it.
            if texts != [""]:
                self.script.call("body", *texts)
            texts = []
        said, *more = self.script.call(name, *texts)
        if name == "eom":
            for made in self.script.edits():
                self.edit(*made)
        if more:
            self.connection.reply(replies.refusal(said, more[0], *more[1:]))
        elif self.connection.due:
            self.connection.reply(getattr(replies, said.upper()))

    def ended(self) -> None:
        """As libmilter's callback has it: once, with or without QUIT."""
        self.script.call("close")

    def edit(self, kind: str, *what: str) -> None:
        """Change the message."""
        connection, raw = self.connection, [one.encode() for one in what]
        match kind:
            case "add":
                connection.add_header(*raw)
            case "insert":
                connection.insert_header(int(what[0]), *raw[1:])
            case "change":
                connection.change_header(int(what[0]), *raw[1:])
            case "quarantine":
                connection.edit(replies.quarantined(*raw))
            case "addrcpt":
                connection.edit(replies.recipient_added(*raw))
            case "delrcpt":
                connection.edit(replies.recipient_deleted(*raw))
            case "progress":
                connection.progress()


def arguments(event: events.Event) -> list[str]:
    """What libmilter's callback gets."""
    match event:
        case events.Connect():
            return [text_of(event.host), event.family, event.address, str(event.port)]
        case events.Mail() | events.Rcpt():
            return [text_of(event.path), *map(text_of, event.parameters)]
        case _:
            return [text_of(one) for one in event if isinstance(one, bytes)]


if __name__ == "__main__":
    loopserver.serve(loopserver.listen(sys.argv[1]), terms, Session)
