"""Log files as commands read them: packed or not, standard input too, line by line in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from hybridgrey.cli.output import fail, is_terminal

STDIN: Final = "-"
LOOK: Final = 10_000  # lines between two steps of the progress bar
GZIP: Final = b"\x1f\x8b"
BZIP2: Final = b"BZh"
XZ: Final = b"\xfd7zXZ\x00"
OTHERS: Final = {b"\x28\xb5\x2f\xfd": "zstdcat", b"PK\x03\x04": "unzip -p", b"\x1f\x9d": "zcat"}
MAX_LINE: Final = 2**20  # bytes; no log line that is ours or Postfix's has more than some 20 KiB


@contextmanager
def lines_of(file: str, told: Callable[[int], None] | None = None) -> Iterator[Iterator[bytes]]:
    """The lines of a log, for a ``with``; ends with one line about what cannot be read.

    `told` hears how many bytes of the file have been read since the last time.
    """
    try:
        with _opened(file) as stream:
            yield _lines(_unpacked(stream), stream, told)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        fail(f"{file}: {getattr(error, 'strerror', None) or error}")


def is_regular(file: str) -> bool:
    """Whether a log can be read twice: not standard input, nor a pipe such as the shell's ``<(zcat ...)``."""
    return file != STDIN and Path(file).is_file()


def last_change(file: str) -> float:
    """When a log was last written to, Unix seconds; a gzipped one remembers that of what it was made of."""
    if not is_regular(file):
        return time.time()
    try:
        with Path(file).open("rb") as stream:
            changed = os.fstat(stream.fileno()).st_mtime
            head = stream.read(8)
    except OSError as error:
        fail(f"{file}: {error.strerror or error}")
    packed = struct.unpack("<I", head[4:8])[0] if head[:2] == GZIP and len(head) == 8 else 0
    return min(changed, float(packed or changed))


def size(file: str) -> int:
    """Bytes of a file, packed as it is; 0 where that is not known."""
    try:
        return Path(file).stat().st_size if is_regular(file) else 0
    except OSError:
        return 0


@contextmanager
def progress(files: tuple[str, ...]) -> Iterator[Callable[[int], None]]:
    """A bar for who watches; what it gives is to be told of bytes that have been read."""
    if not is_terminal(sys.stderr):
        yield lambda _bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading logs", total=sum(map(size, files)) or None)
        yield lambda read: bar.advance(task, read)


@contextmanager
def _opened(file: str) -> Iterator[Any]:
    if file == STDIN:
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as stream:
        yield stream


def _unpacked(stream: Any) -> IO[bytes]:  # noqa: ANN401 (a buffered reader, which typeshed has no one name for)
    head = stream.peek(len(XZ))[: len(XZ)]
    if head.startswith(GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
    if head.startswith(BZIP2):
        return cast("IO[bytes]", bz2.BZ2File(stream))
    if head.startswith(XZ):
        return cast("IO[bytes]", lzma.LZMAFile(stream))
    for magic, command in OTHERS.items():
        if head.startswith(magic):
            raise OSError(f"is packed in a way that is not read here; pipe it in with {command}")
    return cast("IO[bytes]", stream)


def _lines(unpacked: IO[bytes], stream: Any, told: Callable[[int], None] | None) -> Iterator[bytes]:  # noqa: ANN401
    """Lines of bounded length: what is longer comes in pieces, which make no sense and so are passed over."""
    before, number = 0, 0
    while line := unpacked.readline(MAX_LINE):
        yield line
        number += 1
        if told is not None and number % LOOK == 0 and stream.seekable():
            at = stream.tell()
            told(at - before)
            before = at
