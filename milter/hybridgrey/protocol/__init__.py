"""The milter protocol, version 6, without I/O: bytes in, events and bytes out.

An MTA connects to a filter and tells it, command by command, what an SMTP client says; the filter answers.
This package is the filter's side of that talk. It opens no socket, knows no clock and judges nothing, so that
any loop can drive it and any test can feed it.

    connection = Connection(Terms(actions=wire.ADD_HEADERS, steps=wire.NO_BODY, macros={Stage.RCPT: "i"}))
    connection.receive(data)                      # what has come from the socket
    while (event := connection.next_event()) is not None:
        ...                                       # look at it, and at connection.macro(b"i")
        if connection.due:
            connection.reply(replies.CONTINUE)    # now, or when the verdict is known
    connection.sent(sock.send(connection.output))

Words:

frame    what goes over the wire: a length of four bytes, a letter, a payload
command  a frame of the MTA
event    a command as the filter sees it, a small tuple
reply    the filter's one answer to a command; `due` while the MTA waits for it
edit     what the filter wants changed in a message, sent before the reply to its end
macro    a named value that the MTA sends before a command; it belongs to that command's *stage*
offer    what the MTA can do: version, *actions* (edits), *steps* (commands it may leave out, and replies it
         can do without)
terms    what the filter wants of it; both make the *agreement*

Modules, in reading order:

wire        letters and flags; `ProtocolError`
events      one tuple for each command
commands    payloads read as events, and what is done about malformed ones
replies     frames to send
terms       the negotiation
macros      which macro is in force
steps       what each command does
connection  one connection of an MTA

Sources: libmilter (Sendmail 8.17: mfapi.h, mfdef.h, engine.c) and Postfix src/milter/milter8.c. The
answer to an offer is libmilter's, byte for byte. Where libmilter would leave an MTA waiting, or keep what is
stale, this package does better: see `commands`, `macros` and `connection`.
"""
