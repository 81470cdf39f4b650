"""``hybridgrey import``: Postfix's rules, other greylisters' senders, and what mail logs tell."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hybridgrey.cli import Group, import_correspondents, import_senders, import_spam
from hybridgrey.cli.output import as_json, fail
from hybridgrey.config import textfile
from hybridgrey.migrate import configfile, postfix
from hybridgrey.migrate.found import Found, Unreadable

STDIN = "-"
MAX_BYTES = 64 * 2**20


@click.group("import", cls=Group)
def import_() -> None:
    """Bring along rules and known senders from other programs, and what their logs tell.

    \b
    Examples:
      hybridgrey import postfix /etc/postfix/main.cf >hybridgrey.toml
      postconf -n | hybridgrey import postfix -
      hybridgrey import postgrey --dry-run /var/lib/postgrey
      hybridgrey import correspondents --dry-run /var/log/mail.log*
      hybridgrey import spam /var/log/mail.log
    """


for _command in (
    *import_senders.COMMANDS,
    import_correspondents.import_correspondents,
    import_spam.import_spam,
):
    import_.add_command(_command)


@import_.command("postfix")
@click.argument("file", metavar="FILE")
@click.option("--json", "json_", is_flag=True, help="Print rules and what was not taken over as JSON.")
def import_postfix(file: str, json_: bool) -> None:
    """Print the rules for a Postfix main.cf, or for the output of "postconf -n".

    FILE "-" is standard input. Each rule has a comment with the line it comes from. Comments and stderr name
    what is not taken over. Run it on the host of the main.cf, so that the maps it names can be read.

    \b
    Examples:
      hybridgrey import postfix /etc/postfix/main.cf >hybridgrey.toml
      postconf -n | hybridgrey import postfix -
      hybridgrey import postfix --json /etc/postfix/main.cf | jq '.not_taken_over'
    """
    name = "postconf" if file == STDIN else file
    folder = "" if file == STDIN else str(Path(file).absolute().parent)
    found = postfix.convert(_source(file), _read, folder)
    import_senders.tell_lost(found, name)
    if json_:
        as_json(
            {
                "rules": [{**f.table, **_about(f, name)} for f in found if f.is_rule],
                "zones": {f.zone: f.table for f in found if f.zone and not f.lost},
                "not_taken_over": [_about(f, name) for f in found if f.lost],
            }
        )
    else:
        click.echo(configfile.render(found, name), nl=False)


def _about(found: Found, name: str) -> dict[str, list[str]]:
    return {"origin": configfile.origins(found, name), "notes": list(found.notes)}


def _source(file: str) -> str:
    """The text of a file, "-" for standard input; in any encoding, for what counts is ASCII."""
    try:
        with sys.stdin.buffer if file == STDIN else Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        fail(f"{file}: {error.strerror}")


def _read(path: str) -> str | Unreadable:
    """The text of a map that main.cf names."""
    try:
        return textfile.read(Path(path))
    except FileNotFoundError:
        return Unreadable("does not exist here")
    except ValueError as error:
        return Unreadable(str(error))
