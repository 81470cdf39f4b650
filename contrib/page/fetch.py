"""Fetch the locked npm packages without npm: `fetch.py LOCK TARGET [--dev]`, as ``npm ci`` would.

Each tarball of package-lock.json is read from the registry, held against the lock's hash and unpacked into
TARGET/node_modules/NAME. The registry is npm's own setting: ``npm_config_registry``, a ``registry=`` line in
~/.npmrc, or npm's default. Standard library only: it also runs before anything is installed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import urllib.request
from pathlib import Path

DEFAULT = "https://registry.npmjs.org/"
TIMEOUT = 60.0  # s
MAX_BYTES = 32 * 2**20


def registry() -> str:
    """The registry that npm would ask, with a slash at its end."""
    found = next((v for k, v in os.environ.items() if k.lower() == "npm_config_registry"), "")
    settings = Path.home() / ".npmrc"
    if not found and settings.is_file():
        for line in settings.read_text(errors="replace").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "registry":
                found = value.strip()
    return (found or DEFAULT).rstrip("/") + "/"


def tarball(name: str, version: str, integrity: str) -> bytes:
    """A package's tarball; raises ValueError when it is not the one that was locked."""
    url = f"{registry()}{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    with urllib.request.urlopen(url, timeout=TIMEOUT) as reply:  # noqa: S310 (npm's registry)
        data: bytes = reply.read(MAX_BYTES)
    kind, _, digest = integrity.partition("-")
    if kind != "sha512" or hashlib.sha512(data).digest() != base64.b64decode(digest):
        raise ValueError(f"{name} {version} is not what package-lock.json has")
    return data


def unpack(data: bytes, folder: Path) -> None:
    """Unpack what lies under the tarball's one top folder."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            path = Path(*Path(member.name).parts[1:])
            content = archive.extractfile(member) if member.isfile() else None
            if content is None or path.is_absolute() or ".." in path.parts:
                continue
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content.read())


def main(lock: Path, target: Path, *, dev: bool) -> None:
    """Fetch what the lock names."""
    for place, package in json.loads(lock.read_text())["packages"].items():
        if place and (dev or not package.get("dev")):
            name = place.removeprefix("node_modules/")
            unpack(tarball(name, package["version"], package["integrity"]), target / place)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), dev="--dev" in sys.argv[3:])
    except (OSError, ValueError, tarfile.TarError) as error:
        sys.exit(f"page: {error}")
