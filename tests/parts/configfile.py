"""Config files of the tests: write one, load it, and take what is said of it."""

import re
from pathlib import Path

import pytest

from hybridgrey.config import load as loading
from hybridgrey.config.load import Config, ConfigError

CATCH_ALL = '\n[[rule]]\nname = "the rest"\naction = "greylist"\n'
# As long as a key of Spamhaus, and of the same letters and digits.
_LINE = re.compile(r"^line [0-9]+: ")
LIST_KEY = "0123456789abcdefghijklmnop"


def load(folder: Path, text: str | bytes) -> Config:
    """Load a file with this text."""
    path = folder / "hg.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return loading.load(path)


def errors(folder: Path, text: str | bytes) -> list[str]:
    """What is wrong with this text, without the file's name and lines."""
    with pytest.raises(ConfigError) as error:
        load(folder, text)
    prefix = f"{folder / 'hg.toml'}: "
    assert all(p.startswith(prefix) and p.isprintable() for p in error.value.problems)
    return [_LINE.sub("", p.removeprefix(prefix)) for p in error.value.problems]


def warnings(folder: Path, text: str) -> list[str]:
    """The warnings for a valid text, without the file's name and lines."""
    return [_LINE.sub("", w.removeprefix(f"{folder / 'hg.toml'}: ")) for w in load(folder, text).warnings]


def rule(text: str, then: str = CATCH_ALL) -> str:
    """A file with this rule and a catch-all."""
    return f"[[rule]]\n{text}\n{then}"
