"""Which engine carries the sessions: libmilter, or ours."""

from __future__ import annotations

import importlib
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


def load(wanted: str) -> None:
    """Load what the `chosen` engine runs on, before workers are forked: once for all of them.

    Raises `worker.UnfitError` as `chosen` does.
    """
    if chosen(wanted) == LIBMILTER:
        # Not at the head of the module: it needs libmilter, which has just been checked
        importlib.import_module("hybridgrey.process.libmilter_engine")
