"""The page's libraries are fetched without npm: what is locked, and only that."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

FETCH = Path(__file__).parents[2] / "contrib/page/fetch.py"
LOCK = FETCH.with_name("package-lock.json")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder of tarballs, served as npm's registry does; the folder and its URL."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def tarball(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


def publish(folder: Path, name: str, data: bytes) -> dict[str, object]:
    """Put a tarball where it is looked for; its entry in a lock file."""
    place = folder / name / "-" / f"{name.rpartition('/')[2]}-1.0.0.tgz"
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    return {"version": "1.0.0", "integrity": f"sha512-{digest}"}


def fetch(tmp_path: Path, packages: Mapping[str, object], url: str, *words: str) -> tuple[int, str]:
    lock = tmp_path / "lock.json"
    lock.write_text(json.dumps({"packages": {"": {}, **packages}}))
    environment = {**os.environ, "npm_config_registry": url}
    done = subprocess.run(
        [sys.executable, FETCH, lock, tmp_path / "out", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def files(tmp_path: Path) -> set[str]:
    root = tmp_path / "out"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_is_locked_is_fetched(tmp_path: Path, registry: tuple[Path, str]) -> None:
    """Packages with and without a scope; those for development only on request."""
    folder, url = registry
    chart = publish(folder, "chart", tarball({"package/dist/chart.js": b"1"}))
    tool = publish(folder, "@scope/tool", tarball({"package/tool.js": b"2"})) | {"dev": True}
    packages = {"node_modules/chart": chart, "node_modules/@scope/tool": tool}
    assert fetch(tmp_path, packages, url) == (0, "")
    assert files(tmp_path) == {"node_modules/chart/dist/chart.js"}
    assert fetch(tmp_path, packages, url, "--dev") == (0, "")
    assert files(tmp_path) == {"node_modules/chart/dist/chart.js", "node_modules/@scope/tool/tool.js"}


def test_nothing_else_is(tmp_path: Path, registry: tuple[Path, str]) -> None:
    """A tarball that is not the locked one is refused before it is unpacked, in one line."""
    folder, url = registry
    entry = publish(folder, "chart", tarball({"package/chart.js": b"1"}))
    (folder / "chart/-/chart-1.0.0.tgz").write_bytes(tarball({"package/chart.js": b"evil"}))
    status, error = fetch(tmp_path, {"node_modules/chart": entry}, url)
    assert (status, error) == (1, "page: chart 1.0.0 is not what package-lock.json has\n")
    assert files(tmp_path) == set()
    status, error = fetch(tmp_path, {"node_modules/chart": entry}, "http://127.0.0.1:1")
    assert (status, len(error.splitlines())) == (1, 1)


def test_nothing_is_written_elsewhere(tmp_path: Path, registry: tuple[Path, str]) -> None:
    """Names that lead out of the package's folder, and links, are passed over."""
    folder, url = registry
    data = tarball({"package/../../escaped.js": b"1", "/package/absolute.js": b"2", "package/good.js": b"3"})
    assert fetch(tmp_path, {"node_modules/chart": publish(folder, "chart", data)}, url) == (0, "")
    assert "node_modules/chart/good.js" in files(tmp_path)
    assert not [path for path in tmp_path.rglob("escaped.js") if path.is_file()]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_the_lock_names_no_registry() -> None:
    """The committed lock has hashes for all, and addresses of nobody's."""
    packages = json.loads(LOCK.read_text())["packages"]
    assert set(packages) == {"", "node_modules/axe-core", "node_modules/uplot"}
    assert all(one["integrity"].startswith("sha512-") for name, one in packages.items() if name)
    assert "resolved" not in LOCK.read_text()
