"""The daemon's start, in the one order that works, and its run to the end.

1. the engine: if it is libmilter, that is fit for use
2. open the listening socket, as whoever we are, root perhaps
3. make the embedded store's folder, for the user
4. become that user, for good
5. start the embedded store; from here on what is made is the user's
6. fork (`master`)

What goes wrong up to then is a StartError with one line for the admin.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from hybridgrey import logs
from hybridgrey.config.load import Config
from hybridgrey.process import configcopy, engines, privileges, statefolder, worker
from hybridgrey.process.configcopy import ConfigCopy
from hybridgrey.process.generation import Build
from hybridgrey.process.listener import Listener, ListenError, inherited, open_listener
from hybridgrey.process.loop import Loop
from hybridgrey.process.master import Master, World
from hybridgrey.process.pidfile import PidFile, PidFileError, place
from hybridgrey.process.privileges import PrivilegeError
from hybridgrey.process.restarts import Pace
from hybridgrey.process.store_watch import StoreWatch
from hybridgrey.process.systemd import Notifier
from hybridgrey.store.binary import EmbeddedError
from hybridgrey.store.embedded import EmbeddedServer
from hybridgrey.trouble.log import Troubles
from hybridgrey.trouble.reporter import Channel

Assemble = Callable[[str, Channel], Build]
"""Makes a Build, given the URL of the embedded store ("" without one) and the children's channel."""


class StartError(Exception):
    """The daemon cannot start; `status` is the exit status (sysexits.h)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run(config: Config, load: Callable[[], Config], assemble: Assemble, pace: Pace | None = None) -> int:
    """Start, serve, end; the exit status.  Raises StartError.  `load` reads the configuration again."""
    logs.configure(config.log.level, config.log.format)
    loop = Loop()
    # A reload ordered while the store still loads its data follows the start; HUP's default would end us.
    loop.on_signal(signal.SIGHUP, _ordered_early)
    notifier = Notifier(os.environ)
    pace = pace or Pace()
    try:
        engines.load(config.engine)  # before we become a user who may not read it
        account = privileges.account(config.user)
        listener = inherited(os.environ) or _listen(config, account)
        try:
            server, pid_file = _become(config, account, notifier)
        except BaseException:
            listener.remove()
            raise
    except worker.UnfitError as exc:
        raise StartError(str(exc), os.EX_UNAVAILABLE) from exc
    except (ListenError, PrivilegeError) as exc:
        raise StartError(str(exc), exc.status) from exc
    except EmbeddedError as exc:
        raise StartError(f"store: {exc}", os.EX_UNAVAILABLE) from exc
    _warn(config)
    channel = Channel()
    world = World(
        listener=listener,
        load=load,
        build=assemble(server.url if server else "", channel),
        notifier=notifier,
        troubles=Troubles(channel),
        store=StoreWatch(server, pace) if server else None,
        pidfile=pid_file,
        copy=ConfigCopy(configcopy.beside(pid_file.path)) if pid_file else None,
        pace=pace,
    )
    return Master(config, world, loop).run()


def _ordered_early() -> None:
    """The signal waits in the loop, which runs when the master has put its handler in the place of this."""


def _listen(config: Config, account: privileges.Account | None) -> Listener:
    return open_listener(
        config.address,
        mode=int(config.socket_mode),
        group=config.socket_group,
        owner=account.uid if account else -1,
    )


def _become(
    config: Config, account: privileges.Account | None, notifier: Notifier
) -> tuple[EmbeddedServer | None, PidFile | None]:
    """Give up what only root may do, then start the store; its server and the pid file, if there are any."""
    folder = config.store.embedded
    if folder is not None:
        statefolder.prepare(folder, account, _names_in(folder, config))
    pid_file = _claim(config, account)
    files = privileges.raise_file_limit()
    privileges.set_priority(config.nice)
    warnings = privileges.warnings(config.files, account)
    privileges.drop(account)
    for warning in warnings:
        logs.get().warning("configuration", warning=warning)
    if files < privileges.ENOUGH_FILES:
        logs.get().warning("few files may be open, raise the limit (ulimit -n)", limit=files)
    if os.geteuid() == 0:
        logs.get().warning('running as root; set user = "hybridgrey", or whom you like, to drop privileges')
    if folder is None:
        return None, pid_file

    def progress(line: str) -> None:
        logs.get().info(line)
        notifier.busy(line)

    server = EmbeddedServer(folder, progress=progress)
    server.start()
    return server, pid_file


def _names_in(folder: Path, config: Config) -> set[str]:
    """The files that the configuration puts into the folder of the store."""
    socket, pid_file = config.address.path, place(config)
    found = {socket.name} if socket is not None and socket.parent == folder else set()
    if pid_file is not None and pid_file.parent == folder:
        found |= {pid_file.name, *configcopy.names(pid_file)}
    return found


def _claim(config: Config, account: privileges.Account | None) -> PidFile | None:
    """The pid file.  Mail does not depend on it, so without one there is only a warning."""
    path = place(config)
    if path is None:
        logs.get().debug("no place for a pid file; `hybridgrey reload` needs one: set pid_file")
        return None
    try:
        return PidFile.claim(path, account.uid if account and os.geteuid() == 0 else -1)
    except PidFileError as exc:
        logs.get().warning("no pid file, so `hybridgrey reload` will not find this daemon", reason=str(exc))
        return None


def _warn(config: Config) -> None:
    for warning in config.warnings:
        logs.get().warning("configuration", warning=warning)
