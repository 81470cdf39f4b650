"""Which engine carries the sessions: libmilter, or ours."""

from __future__ import annotations

from functools import cache
from typing import Final

from hybridgrey.process import worker

LIBMILTER: Final = "libmilter"
NATIVE: Final = "native"


@cache
def chosen(wanted: str) -> str:
    """`libmilter` or `native` for the key `engine`; for all the life of a process the same.

    `auto` is libmilter where its binding is installed and fit for use. Raises `worker.UnfitError` where
    libmilter is wanted and is not.
    """
    if wanted == NATIVE:
        return NATIVE
    try:
        worker.check()
    except worker.UnfitError:
        if wanted == LIBMILTER:
            raise
        return NATIVE
    return LIBMILTER
