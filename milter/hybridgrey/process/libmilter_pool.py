"""What keeps libmilter's pool of threads (_FFR_WORKERS_POOL, as Debian builds it) from sleeping on its work.

Its controller marks every session that has something to read as ready as long as one thread is idle, be
there twenty such sessions, and starts a thread only when none is idle (libmilter/worker.c).  The idle thread
takes one of them and looks for more when it is done with it.  If it waits meanwhile, for a list or for the
rest of a packet, the other sessions wait with it, until something happens on yet another one.

So something happens here on a connection of our own: an SMFIC_ABORT without a session, which libmilter
reads and ignores without calling anybody.  A thread has to be found for it, and that one then looks for
sessions that are ready.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct

_ABORT = struct.pack("!I", 1) + b"A"  # milter protocol: length, SMFIC_ABORT
# Milliseconds of a wait until the first stir; the pause doubles with each in vain, up to the longest.
PAUSE, LONGEST_PAUSE = 5, 40


class Pool:
    """The pool of this process; until it is attached, or where libmilter has none, it does nothing."""

    def __init__(self) -> None:
        self._connection: socket.socket | None = None
        self._watched = False
        self._joined = self._left = False

    def attach(self, connection: socket.socket) -> None:
        """Take a connection to libmilter that nothing has been said on; from now on it is the pool's."""
        connection.setblocking(False)
        self._connection = connection

    def stir(self) -> None:
        """Make a thread look for sessions that are ready."""
        if self._connection is not None:
            # Full: it has enough to read.  Closed: nobody can be helped any more, and nobody has to be.
            with contextlib.suppress(OSError):
                self._connection.send(_ABORT)

    def wait(self, poll: select.poll, milliseconds: int) -> None:
        """`poll.poll`, for a callback: others do not wait with it.

        One waiting callback stirs for all, while none of the others has done waiting: when it has its answer
        its thread takes the next ready session, and if that has to wait it is its turn.
        """
        if self._watched or self._connection is None:
            self._joined = True
            poll.poll(milliseconds)
            self._left = True
            return
        self._watched = True
        try:
            pause = PAUSE
            while milliseconds > pause:
                if poll.poll(pause):
                    return
                milliseconds -= pause
                if self._left:
                    # The thread of who has done waiting looks for sessions that are ready by itself.
                    self._left = False
                    continue
                # Who has begun to wait may have been brought to it by the last stir, and not be the only one.
                pause = PAUSE if self._joined else min(2 * pause, LONGEST_PAUSE)
                self._joined = False
                self.stir()
            poll.poll(milliseconds)
        finally:
            self._watched = False
