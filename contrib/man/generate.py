#!/usr/bin/env python3
"""Print hybridgrey(8), made from the command line's own help: commands, options, examples.

`make man` writes it to hybridgrey.8; a test compares the two, so the page cannot drift from the program.
"""

import inspect
import re
import sys
from collections.abc import Iterator

import click

from hybridgrey.cli import hybridgrey

HEAD = r""".\" Made by contrib/man/generate.py from the program's help: change that, then run `make man`.
.TH HYBRIDGREY 8 "" "hybridgrey" "System Administration"
.SH NAME
hybridgrey \- a milter that accepts the trusted, rejects the listed and greylists the rest
.SH SYNOPSIS
.B hybridgrey
[\fB\-c\fR \fIFILE\fR] \fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...
.SH DESCRIPTION
hybridgrey judges each recipient of each mail that Postfix or Sendmail receives, by rules of which the first
that matches decides: clients allowed by hand are accepted, those on a DNS blocklist rejected, those on an
allowlist accepted, all others greylisted. DNS lists are asked in parallel while the SMTP dialogue goes on;
what greylisting remembers is kept in Redis or Valkey, for one host or many. The rules are described in
.BR hybridgrey.toml (5).
"""

TAIL = r""".SH SIGNALS
.TP
.B SIGHUP
The daemon reads its configuration again. A good one is used for new connections, while the open ones go
on with the old one. A bad one is logged and changes nothing.
.TP
.BR SIGTERM ", " SIGINT
The daemon takes no new connections, lets the open sessions come to their end, for at most
.BR drain_timeout ,
and ends.
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
A negative result, or something that could not be done.
.TP
.B 2
Wrong usage.
.TP
.B 69
The store, a socket or another service that is needed is not there.
.TP
.B 77
Not permitted.
.TP
.B 78
The configuration is bad, and no daemon runs whose configuration could be used instead; standard error has all
that is wrong with it.
.SH ENVIRONMENT
.TP
.B NO_COLOR
No colours, on a terminal either.
.SH FILES
.TP
.I /etc/hybridgrey/hybridgrey.toml
The configuration.
.TP
.I /etc/hybridgrey/allow_clients
Clients allowed by hand, one a line.
.TP
.I /etc/hybridgrey/pools
Domains of large senders, whose SPF records name their networks.
.TP
.I /var/lib/hybridgrey/hybridgrey.pools
These networks as they were resolved last, so that a restart does not depend on DNS.
.TP
.I /var/lib/hybridgrey/hybridgrey.in-effect
Beside the pid file, while the daemon runs: its copy of the configuration in effect, with the secrets, for
root and the daemon's account only. Where the configuration file is broken,
.BR status ", " greylist ", " explain ", " zones " and " report
work by it, and say on standard error what is wrong with the file.
.TP
.I /var/lib/hybridgrey/hybridgrey.hand
In the daemon's folder of state: the host's copy of the entries by hand, which holds while the store is down.
.SH SEE ALSO
.BR hybridgrey.toml (5),
.BR postconf (5),
.BR sendmail (8)
.PP
RFC 5782 (DNS lists), RFC 6647 (greylisting), RFC 8904 (results of allowlists)
"""


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below a group, with the words that call them."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    if command.invoke_without_command and path:  # it does something by itself, too
        yield path, command
    context = click.Context(command, info_name="hybridgrey")
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is not None and not below.hidden:
            yield from commands(below, (*path, name))


def escape(text: str) -> str:
    """Text for roff: its own characters, and no dot at the beginning of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def parts(command: click.Command) -> tuple[list[str], list[str]]:
    """The paragraphs of a command's help, and the lines of its examples."""
    paragraphs: list[str] = []
    examples: list[str] = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines = paragraph.replace("\b\n", "").split("\n")
        if lines[0] == "Examples:":
            examples += [line.strip() for line in lines[1:]]
        else:
            paragraphs.append(paragraph)
    return paragraphs, examples


def entry(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    """The lines about one command."""
    context = click.Context(command, info_name=path[-1])
    arguments = [p.human_readable_name for p in command.params if isinstance(p, click.Argument)]
    options = " [\\fIOPTION\\fR]..." if any(isinstance(p, click.Option) for p in command.params) else ""
    yield f".SS {escape(' '.join(path))}"
    yield f"\\fBhybridgrey {escape(' '.join(path))}\\fR{options} {escape(' '.join(arguments))}".rstrip()
    paragraphs, examples = parts(command)
    for paragraph in paragraphs:
        filled = (
            "\n.br\n".join(escape(line.strip()) for line in paragraph.split("\n")[1:])
            if paragraph.startswith("\b")
            else ""
        )
        yield f".PP\n{filled or escape(paragraph)}"
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record:
            yield f".TP\n.B {escape(record[0])}\n{escape(' '.join(record[1].split()))}"
    if examples:
        yield ".PP\nExamples:\n.PP\n.nf\n.RS\n" + "\n".join(map(escape, examples)) + "\n.RE\n.fi"


def page() -> str:
    """The whole page."""
    lines = [".SH COMMANDS", "Each command takes \\fB\\-h\\fR for help."]
    for path, command in commands(hybridgrey):
        lines += entry(path, command)
    return HEAD + "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    sys.stdout.write(page())
