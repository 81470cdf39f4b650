"""Root in the folder of an account that has been broken into: what is root's stays as it is."""

import contextlib
import os

import pytest

from hybridgrey.config.sockets import Address
from hybridgrey.process import privileges, statefolder
from hybridgrey.process.listener import ListenError, open_listener
from hybridgrey.process.privileges import PrivilegeError
from parts.attacker import UID, Attacker, catch, catch_folders, swing

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who has something to lose")
TURNS = 250


@pytest.mark.parametrize("attack", [catch("s"), catch_folders], ids=["the socket", "each folder"])
def test_listener(tmp_path, attack):
    """A socket is opened again and again while its name, or the folder that it is made in, is exchanged."""
    folder = tmp_path / "run"
    opened = 0
    with Attacker(folder, tmp_path / "roots" / "s", attack) as attacker:
        for _ in range(TURNS):
            (folder / "s").unlink(missing_ok=True)
            with contextlib.suppress(ListenError):
                open_listener(Address("unix", path=folder / "s"), mode=0o666, group="mail").close()
                opened += 1
        assert attacker.successes()
    assert attacker.unharmed()
    assert opened


def test_state_folder(tmp_path):
    """The folder of the store is taken over again and again while a folder in it is exchanged."""
    nobody = privileges.account("nobody")
    folder, name = tmp_path / "state", "appendonly.aof.1.incr.aof"
    data = folder / statefolder.DATA
    data.mkdir(parents=True)
    (data / name).touch()
    for path in (data, data / name):
        os.chown(path, UID, UID)
    with Attacker(folder, tmp_path / "roots" / name, swing(statefolder.DATA)) as attacker:
        for _ in range(12 * TURNS):
            with contextlib.suppress(PrivilegeError):
                statefolder.prepare(folder, nobody)
    assert attacker.unharmed()
