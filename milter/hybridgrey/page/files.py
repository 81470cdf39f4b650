"""The files of the page, as they are sent: read once, with a name that changes when any of them does.

All but the page itself lie under ``/page/VERSION/``, where VERSION is a hash over all files: browsers may
keep them for ever, and a new version is a new address.  The chart library is not part of the source
(``contrib/setup/page`` fetches it); where it is missing, the page does not mention it.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).parent / "static"
INDEX: Final = "index.html"
VENDOR: Final = "vendor"

_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class File(NamedTuple):
    """A file, and the same compressed."""

    content_type: str
    plain: bytes
    packed: bytes


class Files:
    """The files of a folder and its vendor folder, by their path in it."""

    def __init__(self, folder: Path = FOLDER) -> None:
        contents = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted((*folder.glob("*.*"), *folder.glob(f"{VENDOR}/*.*")))
            if path.suffix in _TYPES
        }
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(b"%d %d %s%s" % (len(name), len(content), name.encode(), content))
        self.version = digest.hexdigest()[:16]
        contents[INDEX] = self._index(contents[INDEX], complete=any(VENDOR in name for name in contents))
        self._files = {
            name: File(_TYPES[Path(name).suffix], content, gzip.compress(content, mtime=0))
            for name, content in contents.items()
        }

    def _index(self, content: bytes, *, complete: bool) -> bytes:
        lines = content.replace(b"VERSION", self.version.encode()).splitlines(keepends=True)
        return b"".join(line for line in lines if complete or VENDOR.encode() not in line)

    @property
    def index(self) -> File:
        """The page itself."""
        return self._files[INDEX]

    def find(self, path: str) -> File | None:
        """The file of ``VERSION/NAME``; None when there is none, or no longer in that version."""
        version, _, name = path.partition("/")
        return self._files.get(name) if version == self.version else None
