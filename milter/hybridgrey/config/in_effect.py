"""A configuration in bytes, complete in itself: the daemon's copy of the one in effect.

It holds the texts that the configuration was read from, files of entries among them, and what a reload could
not change.  So it means the same whatever has become of those files, and no notation of entries or keys is
written a second time here.  It holds secrets.

`places` finds where the daemon that has the copy keeps its files, although the configuration file is broken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w

from hybridgrey.config import restart_only, textfile
from hybridgrey.config.lines import nested, readable
from hybridgrey.config.load import MAX_BYTES, Config, ConfigError, load

_PLACES: Final = (("pid_file",), ("listen",), ("store", "url"))
"""The keys that say where the daemon's files are."""


def dump(config: Config) -> bytes:
    """The configuration, which was read from a file, in bytes: a JSON object in ASCII."""
    sources = {str(path): text for path, text in config.sources.items()}
    copy = {"path": str(config.path), "sources": sources, "kept": restart_only.values(config)}
    # ASCII, for a path may hold bytes that are no UTF-8
    return json.dumps(copy).encode()


def parse(data: bytes) -> Config:
    """The configuration that was dumped; raises ValueError, with no secret in it."""
    path, sources, kept = _parts(data)

    def read(wanted: Path, _limit: int) -> str:
        """A file as it was; one that was missing then is missing."""
        text = sources.get(str(wanted))
        if not isinstance(text, str):
            raise FileNotFoundError(wanted)
        return text

    try:
        return restart_only.restored(load(Path(path), read), kept)
    except ConfigError as error:
        raise ValueError(f"is of another version: {error.problems[0]}") from None


def _parts(data: bytes) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    try:
        copy = json.loads(data)
    except (ValueError, RecursionError):
        copy = None
    if isinstance(copy, dict):
        path, sources, kept = (copy.get(name) for name in ("path", "sources", "kept"))
        if isinstance(path, str) and isinstance(sources, dict) and isinstance(kept, dict):
            return path, sources, kept
    raise ValueError("is no copy of a configuration")


def places(path: Path) -> Config:
    """A configuration of the keys that name the daemon's files, as far as they can be read."""
    try:
        raw = readable(textfile.read(path, MAX_BYTES))
    except (OSError, ValueError):
        raw = {}
    found: dict[str, Any] = {}
    for key in _PLACES:
        value = _value(raw, key)
        table = nested(key[:-1], {key[-1]: value})
        if isinstance(value, str) and _loaded(path, table) is not None:
            found |= table
    return _loaded(path, found) or _only(path, {})


def _value(raw: Any, key: tuple[str, ...]) -> object:  # noqa: ANN401 (as in the file)
    for part in key:
        raw = raw.get(part) if isinstance(raw, Mapping) else None
    return raw


def _loaded(path: Path, table: Mapping[str, Any]) -> Config | None:
    try:
        return _only(path, table)
    except ConfigError:
        return None


def _only(path: Path, table: Mapping[str, Any]) -> Config:
    """A configuration of these keys alone, without a file of entries."""
    text = tomli_w.dumps({**table, "rule": [{"action": "accept"}]})
    return load(path, lambda _path, _limit: text)
