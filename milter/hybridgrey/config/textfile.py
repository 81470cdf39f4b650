"""Read a text file that an admin wrote, or say in one line why that cannot be done.

Used for the config file and the files of entries that it names.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

# A million entries fit; a file beyond it is a disk image or a log, and reading it would stop the reload.
MAX_BYTES = 64 * 2**20

Read = Callable[[Path, int], str]
"""What reads a file of at most so many bytes; raises what `read` does."""


def read(path: Path, limit: int = MAX_BYTES) -> str:
    """The text of a regular UTF-8 file of at most `limit` bytes.

    Raises FileNotFoundError, or ValueError with the reason.
    """
    try:
        # Looked at before it is opened: opening a named pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("is a directory" if path.is_dir() else "is no regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise ValueError(f"cannot be read: {e.strerror or type(e).__name__}") from e
    if len(data) > limit:
        raise ValueError(f"is larger than {limit} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise ValueError(f"is not UTF-8 text: bad byte in line {line}") from None
