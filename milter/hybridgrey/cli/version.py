"""``hybridgrey version``: which version this is."""

from __future__ import annotations

import click

from hybridgrey import __version__


@click.command()
def version() -> None:
    """Print the version.

    \b
    Examples:
      hybridgrey version
    """
    click.echo(f"hybridgrey, version {__version__}")
