"""One libmilter process: it takes connections from the shared listening socket until it is told to drain.

*How libmilter gets our socket.*  It opens its own and takes no other: Debian's ``fd:N`` is a local patch,
and without it libmilter refuses peers whose family differs from that of the socket it has opened.  So it
opens a throw-away socket of the family of ours; once it has proved there that it serves, our socket is put
over that descriptor with dup2(2).  This is the same on every system, gives the master a readiness that
means something, and leaves libmilter nothing of ours to unlink.

*Signals.*  libmilter waits for TERM, HUP and INT in a thread of its own and cuts all sessions on each.  A
worker ignores these three, so that nobody can; the kernel throws an ignored signal away before that thread
can see it.  USR1 and USR2 (see `serving`) libmilter does not know; USR2 also ends the sleep of its poll(2),
which would hold on to the shared socket for up to 5 seconds after the dup2.

*The end.*  Neither ``milter.stop`` nor a return from ``milter.main`` can be survived: the first cuts
sessions, after the second libmilter hangs or crashes.  So the process leaves with os._exit, always.

With `libmilter_engine` the only importer of ``milter``.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn, Protocol

from hybridgrey import logs
from hybridgrey.process import descriptors, serving
from hybridgrey.process.libmilter_pool import Pool
from hybridgrey.process.serving import Terms

_QUIT = struct.pack("!I", 1) + b"Q"  # milter protocol: length, SMFIC_QUIT
_PROBE_TIMEOUT = 10.0  # seconds for libmilter to come up; the machine may be busy
_LOOK = 0.1  # seconds between two looks at the sessions of a draining worker
# Seconds.  A thread that waits for the interpreter wakes at this interval to ask for it.  With hundreds of
# threads, which libmilter starts in a rush, Python's 5 ms made that most of the work; callbacks give the
# interpreter up at every wait anyway.
_SWITCH_INTERVAL = 0.1
_STACK = 1 << 20  # bytes; the interpreter's own frames are not on the C stack
_ATTRIBUTES_SIZE = 256  # more than any pthread_attr_t
_M_ARENA_MAX = -8  # malloc.h
_INSTALL = (
    "install it with: pip install 'hybridgrey[milter]' "
    "(needs gcc, python3-dev and libmilter-dev; on FreeBSD the port mail/libmilter)"
)


class UnfitError(Exception):
    """libmilter or its binding cannot be used here; the text says what to do."""


class Registration(Protocol):
    """What serves the sessions, once its callbacks are known to libmilter; `pool` is libmilter's."""

    pool: Pool

    @property
    def live(self) -> int:
        """Open sessions."""
        ...

    def tick(self) -> None:
        """Housekeeping, called about once a second from the main thread."""
        ...

    def close(self) -> None:
        """Flush what has not been written; called once, when no session is served any more."""
        ...


def check() -> None:
    """Raise UnfitError unless libmilter can be used in this process."""
    milter = _binding()
    if sys.version_info >= (3, 14) and _has_pool(str(milter.__file__)):
        raise UnfitError(
            "Python 3.14 or newer crashes with this libmilter, which has a pool of workers "
            '(_FFR_WORKERS_POOL, as in Debian): set engine = "native", or run Python 3.11 to 3.13'
        )


def serve(
    listening: socket.socket,
    register: Callable[[], Registration],
    ready: Callable[[], None],
    terms: Terms,
) -> NoReturn:
    """Run a worker as in `serving`.

    `register` builds what serves and makes its callbacks known to libmilter (``milter.register`` included).
    """
    serving.serve(lambda: _Worker(listening, terms, register), ready)


class _Worker(serving.Worker):
    """The main thread's view of the process; libmilter has its own threads."""

    def __init__(self, listening: socket.socket, terms: Terms, register: Callable[[], Registration]) -> None:
        self._family = listening.family
        self._place = descriptors.place(listening)
        self._register = register
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        super().__init__(listening, terms, wake_write)
        _frugal_threads()
        sys.setswitchinterval(_SWITCH_INTERVAL)

    def start(self) -> None:
        """Bring libmilter up on a socket of its own, then give it ours."""
        self._registration = registration = self._register()
        with tempfile.TemporaryDirectory(prefix="hybridgrey-") as folder:
            self._fd = _open_own_socket(self._listening.family, Path(folder))
            self._dead = _dead_socket(Path(folder))
            self._thread = threading.Thread(target=_main, name="libmilter", daemon=True)
            self._thread.start()
            if _has_pool(str(_binding().__file__)):
                # Before the probe: what answers that has taken this, too.
                registration.pool.attach(_connected(self._fd))
            _probe(self._fd)
        self._swap(self._listening)

    def run(self) -> None:
        """As in `serving.Worker`."""
        while self._wanted:
            self._sleep(self._terms.tick)
            self._registration.pool.stir()
            self._keep_house(self._registration.tick)
        self._drain()

    def _drain(self) -> None:
        """Take no more connections, let the open ones come to their end, up to the deadline."""
        self._swap(self._dead)
        self._listening.close()
        deadline = time.monotonic() + self._terms.drain_timeout
        quiet = 0
        # Twice quiet: a connection that was just being accepted shows up at the second look.
        while quiet < 2 and not self._hurried and time.monotonic() < deadline:
            self._sleep(_LOOK)
            self._registration.pool.stir()
            quiet = 0 if self._busy() else quiet + 1
        cut = self._registration.live
        self._registration.close()
        self._tell_end(cut)

    def _busy(self) -> bool:
        """Whether an MTA still holds a connection, be it one whose first packet has not come yet."""
        return self._registration.live > 0 or descriptors.connections(self._family, self._place) > 0

    def _swap(self, sock: socket.socket) -> None:
        """Make libmilter listen on `sock`, and let go of what it listened on, at once."""
        os.dup2(sock.fileno(), self._fd, inheritable=False)
        if self._thread.ident is not None:
            signal.pthread_kill(self._thread.ident, serving.WAKE)

    def _sleep(self, seconds: float) -> None:
        if select.select([self._wake_read], [], [], seconds)[0]:
            os.read(self._wake_read, 4096)


def _main() -> None:
    """Run libmilter; there is no way on from its end."""
    try:
        _binding().main()
        logs.get().error("libmilter ended")
    except BaseException:
        logs.get().exception("libmilter failed")
    finally:
        os._exit(serving.FAILED)


def _binding() -> ModuleType:
    """The C extension ``milter``, looked up late so that all but the daemon works without it."""
    try:
        import milter
    except ImportError as exc:
        raise UnfitError(f"no Python binding of libmilter ({exc}); {_INSTALL}") from exc
    if not hasattr(milter, "set_flags"):
        found = getattr(milter, "__file__", None) or next(iter(getattr(milter, "__path__", ["?"])))
        raise UnfitError(f"the module milter at {found} is not pymilter's; {_INSTALL}")
    return milter


def _has_pool(library: str) -> bool:
    """Whether the libmilter behind `library` is the build with a pool of worker threads."""
    try:
        return hasattr(ctypes.CDLL(library), "mi_pool_controller_init")
    except OSError:  # built into the interpreter: no file to look into, and no such build is known
        return False


def _open_own_socket(family: int, folder: Path) -> int:
    """Let libmilter open a socket of `family` that nobody else knows; its descriptor."""
    milter = _binding()
    place = {socket.AF_INET: "inet:0@[127.0.0.1]", socket.AF_INET6: "inet6:0@[::1]"}
    milter.setconn(place.get(socket.AddressFamily(family), f"unix:{folder}/own"))
    before = descriptors.low()
    milter.opensocket(False)
    for fd in descriptors.low() - before:
        if descriptors.is_listening(fd):
            os.set_blocking(fd, False)
            return fd
    raise RuntimeError("libmilter has opened no socket")


def _dead_socket(folder: Path) -> socket.socket:
    """A listening socket that nobody can reach, as its path is about to go.

    It must listen: libmilter takes the hang-up that poll(2) reports for any other for a reason to abort.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(f"{folder}/dead")
    sock.listen(1)
    sock.setblocking(False)
    return sock


def _connected(fd: int) -> socket.socket:
    """A connection to the socket that libmilter listens on."""
    with descriptors.borrowed(fd) as listening:
        if listening is None:
            raise RuntimeError("libmilter has closed its socket")
        client = socket.socket(listening.family, socket.SOCK_STREAM)
        client.settimeout(_PROBE_TIMEOUT)
        client.connect(listening.getsockname())
        return client


def _probe(fd: int) -> None:
    """Wait until libmilter serves at `fd`: it hangs up when it has read a QUIT."""
    with _connected(fd) as client:
        client.sendall(_QUIT)
        client.recv(1)


def _frugal_threads() -> None:
    """Make the threads that libmilter starts cheap to come and go, where the C library is GNU's.

    Its pool starts a thread for each session that waits and ends it soon after.  With the default stack of
    8 MiB glibc's cache of stacks holds five, and every other thread costs an mmap, page faults and an munmap;
    and each thread would get a malloc arena of its own.
    """
    library = ctypes.CDLL(None)
    set_default = getattr(library, "pthread_setattr_default_np", None)
    if set_default is None:
        return
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_SIZE)
    if library.pthread_attr_init(attributes) == 0:
        library.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK))
        set_default(attributes)
    library.mallopt(_M_ARENA_MAX, 2)
