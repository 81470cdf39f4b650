"""``hybridgrey import postgrey``, ``sqlgrey`` and ``milter-greylist``: known senders into the store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, as_written, store_trouble, url_of
from hybridgrey.cli.moments import seconds
from hybridgrey.cli.output import as_json, fail, is_terminal
from hybridgrey.config import textfile
from hybridgrey.config.load import Config
from hybridgrey.migrate import configfile, greylisters, whitelists
from hybridgrey.migrate.found import Found
from hybridgrey.migrate.greylisters import PeerError, Tally
from hybridgrey.migrate.restore import Memory, Restored, Restorer
from hybridgrey.process import stores
from hybridgrey.store.connection import Store, StoreError

STDIN = "-"
LEAST_TIMEOUT = 5.0  # s; hundreds of triplets a call take longer than one mail
DATABASES = ("postgrey.db", "postgrey_clients.db")

WORDS = {
    "passed": "passed triplets, new here",
    "renewed": "passed triplets, kept longer now",
    "waiting": "waiting triplets, new here",
    "kept": "triplets as good here already",
    "expired": "triplets too old to matter",
    "networks": "client networks, now allowed",
}

_F = TypeVar("_F", bound=Callable[..., Any])


def _options(command: _F) -> _F:
    for option in (
        click.option("--json", "json_", is_flag=True, help="Print the counts as JSON."),
        click.option("--dry-run", is_flag=True, help="Change nothing, print what would be written."),
        config_option,
    ):
        command = option(command)
    return command


@click.command("postgrey")
@click.argument("paths", metavar="FILE|DIR...", nargs=-1, required=True)
@click.option(
    "--delay",
    callback=seconds,
    metavar="DURATION",
    default="5m",
    show_default=True,
    help="postgrey's own --delay.",
)
@click.option(
    "--auto-whitelist-clients",
    "allowed_after",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="postgrey's own option of this name.",
)
@_options
def import_postgrey(
    paths: tuple[str, ...], delay: int, allowed_after: int, config_path: Path, dry_run: bool, json_: bool
) -> None:
    """Bring along what postgrey knows, so that nobody is delayed again.

    A DIR is postgrey's --dbdir; it may run meanwhile. A FILE is one of its databases, or the output of
    db_dump for it ("-": on standard input). Passed and waiting triplets and allowed clients go into the
    store of the config file; what is there already never gets worse. Files whitelist_clients and
    whitelist_recipients (or postgrey_whitelist_clients and so on), and a DIR with them, are printed as rules.

    \b
    Examples:
      hybridgrey import postgrey --dry-run /var/lib/postgrey
      hybridgrey import postgrey /var/lib/postgrey
      db_dump /var/lib/postgrey/postgrey.db | hybridgrey import postgrey -
      hybridgrey import postgrey /etc/postgrey >>hybridgrey.toml
    """
    databases, lists = _sorted_out(paths)
    for path in lists:
        _print_rules(path)
    if not databases:
        return
    tally = Tally()

    def memories() -> Iterator[Memory]:
        for database in databases:
            yield from greylisters.postgrey(greylisters.pairs(_dump(database)), delay, allowed_after, tally)

    _restore(config_path, memories(), tally, dry_run=dry_run, json_=json_)


@click.command("sqlgrey")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@_options
def import_sqlgrey(file: Path, config_path: Path, dry_run: bool, json_: bool) -> None:
    """Bring along what sqlgrey keeps in its SQLite FILE.

    sqlgrey forgets the recipient of a sender that has passed, so the client networks of the senders and
    domains in its auto-whitelists are allowed. First attempts become waiting triplets.

    \b
    Examples:
      hybridgrey import sqlgrey --dry-run /var/lib/sqlgrey/sqlgrey.db
    """
    tally = Tally()
    _restore(config_path, greylisters.sqlgrey(file, tally), tally, dry_run=dry_run, json_=json_)


@click.command("milter-greylist")
@click.argument("file", metavar="FILE")
@click.option(
    "--autowhite",
    callback=seconds,
    metavar="DURATION",
    default="1d",
    show_default=True,
    help="milter-greylist's own autowhite.",
)
@click.option(
    "--delay",
    callback=seconds,
    metavar="DURATION",
    default="30m",
    show_default=True,
    help="Its own greylist delay.",
)
@_options
def import_milter_greylist(
    file: str, autowhite: int, delay: int, config_path: Path, dry_run: bool, json_: bool
) -> None:
    """Bring along milter-greylist's dump FILE, "-" for standard input.

    Auto-whitelisted tuples become passed triplets, greylisted ones waiting triplets. The file has only the
    time when a tuple ends; give --autowhite and --delay as in greylist.conf, to find when it began.

    \b
    Examples:
      hybridgrey import milter-greylist --autowhite 32d --dry-run /var/lib/milter-greylist/greylist.db
    """
    tally = Tally()

    def lines() -> Iterator[str]:
        with _opened(file) as stream:
            yield from (line.decode("utf-8", "surrogateescape") for line in stream)

    found = greylisters.milter_greylist(lines(), delay, autowhite, tally)
    _restore(config_path, found, tally, dry_run=dry_run, json_=json_)


COMMANDS = (import_postgrey, import_sqlgrey, import_milter_greylist)


def _sorted_out(paths: Iterable[str]) -> tuple[list[str], list[Path]]:
    """Databases and whitelists among the arguments."""
    databases: list[str] = []
    lists: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            files = [str(path / name) for name in DATABASES if (path / name).is_file()]
            listed = sorted(
                p for p in path.iterdir() if whitelists.is_whitelist(p.name, in_use=True) and p.is_file()
            )
            if not files and not listed:
                fail(f"{text}: neither postgrey's databases nor its whitelists are in it")
            databases += files
            lists += listed
        elif whitelists.is_whitelist(path.name):
            lists.append(path)
        else:
            databases.append(text)
    return databases, lists


def _print_rules(path: Path) -> None:
    try:
        found = whitelists.convert(textfile.read(path), path.name)
    except FileNotFoundError:
        fail(f"{path}: no such file")
    except ValueError as error:
        fail(f"{path}: {error}")
    click.echo(configfile.blocks(found, str(path)))
    tell_lost(found, str(path))


def tell_lost(found: Sequence[Found], source: str) -> None:
    """Say on stderr what is not taken over, each thing once; on a terminal the printed comments say it."""
    if is_terminal(sys.stdout) and is_terminal(sys.stderr):
        return
    losses = (f"{configfile.origins(f, source)[0]}: {'; '.join(f.notes)}" for f in found if f.lost)
    for line in dict.fromkeys(map(configfile.one_line, losses)):
        click.echo(line, err=True)


def _opened(file: str) -> Any:  # noqa: ANN401 (a binary stream)
    return sys.stdin.buffer if file == STDIN else Path(file).open("rb")


def _dump(file: str) -> Iterator[bytes]:
    """The lines of a dump, or of a database by way of db_dump."""
    with _opened(file) as stream:
        if file == STDIN or stream.read(8) == b"VERSION=":
            if file != STDIN:
                stream.seek(0)
            yield from stream
            return
    yield from greylisters.dump_berkeley(Path(file))


def _restore(
    config_path: Path, memories: Iterable[Memory], tally: Tally, *, dry_run: bool, json_: bool
) -> None:
    """Write what was found into the configured store and print the counts."""
    config = as_written(config_path)
    try:
        with closing(_store(config)) as store:
            counts = _restorer(config, store, dry_run=dry_run).restore(memories)
    except StoreError as error:
        fail(store_trouble(config, error), UNAVAILABLE)
    except PeerError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    _print(counts, tally, dry_run=dry_run, json_=json_)


def _store(config: Config) -> Store:
    return Store.open(url_of(config), max(LEAST_TIMEOUT, config.store.timeout))


def _restorer(config: Config, store: Store, *, dry_run: bool) -> Restorer:
    return Restorer(store, stores.open_greylist(config, store), dry_run=dry_run)


def _print(counts: Restored, tally: Tally, *, dry_run: bool, json_: bool) -> None:
    uncertain = tally.pop(greylisters.UNCERTAIN, 0)
    if json_:
        left_out = dict(tally)
        as_json({**asdict(counts), "uncertain": uncertain, "left_out": left_out, "dry_run": dry_run})
        return
    for name, number in asdict(counts).items():
        click.echo(f"{number:>9}  {WORDS[name]}")
    if uncertain:
        click.echo(f"{uncertain:>9}  of these: {greylisters.UNCERTAIN}")
    for name, number in tally.items():
        click.echo(f"{number:>9}  left out: {name}")
    if dry_run:
        click.echo("Nothing was written (--dry-run).")
