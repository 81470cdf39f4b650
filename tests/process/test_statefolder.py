"""The store's folder, for the account that root becomes: what is given away, what is refused unchanged."""

import fcntl
import os
import pwd
import socket
from pathlib import Path

import pytest

from hybridgrey.process import privileges
from hybridgrey.process.privileges import PrivilegeError
from hybridgrey.process.statefolder import DATA, prepare
from hybridgrey.store.embedded import EmbeddedServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
NOBODY = privileges.account("nobody")
OTHER = pwd.getpwnam("mail").pw_uid
AOF = f"{DATA}/appendonly.aof.1.incr.aof"


def tree(path: Path) -> dict[str, tuple[int, int]]:
    return {str(one): (one.lstat().st_uid, one.lstat().st_mode) for one in (path, *path.rglob("*"))}


def fill(folder: Path, *names: str, uid: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, -1)


OURS = ("server.lock", "master.lock", "server.log", "hybridgrey.pid", AOF)


def refusal(folder: Path, *also: str) -> PrivilegeError:
    before = tree(folder)
    with pytest.raises(PrivilegeError) as caught:
        prepare(folder, NOBODY, also)
    assert tree(folder) == before, "refused and yet changed"
    assert "\n" not in str(caught.value)
    return caught.value


def test_missing_folder_is_made(tmp_path):
    """It is the account's, closed to others; a folder made above it is root's."""
    prepare(tmp_path / "a" / "state", NOBODY)
    assert tree(tmp_path / "a" / "state") == {str(tmp_path / "a" / "state"): (NOBODY.uid, 0o40700)}
    assert (tmp_path / "a").stat().st_uid == 0


def test_first_start_without_user(tmp_path):
    """All that a store of root's leaves behind goes to the account, by whatever server it was kept."""
    folder = tmp_path / "state"
    server = EmbeddedServer(folder)
    server.start()
    server.stop()
    fill(folder, "hybridgrey.pid", "milter.sock.pid", "temp-rewriteaof-7.aof", f"{DATA}/temp-1.rdb")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "milter.sock"))
    prepare(folder, NOBODY, {"milter.sock", "milter.sock.pid"})
    assert {uid for uid, _mode in tree(folder).values()} == {NOBODY.uid}
    prepare(folder, NOBODY)


def test_start_cut_short(tmp_path):
    """Where a start was killed half way, the next one does the rest."""
    fill(tmp_path / "state", *OURS)
    for name in (DATA, AOF, "server.lock"):
        os.chown(tmp_path / "state" / name, NOBODY.uid, -1)
    prepare(tmp_path / "state", NOBODY)
    assert {uid for uid, _mode in tree(tmp_path / "state").values()} == {NOBODY.uid}


# What is in root's folder beside our own files, and the word that the refusal has.
FOREIGN = [
    (("apt/lists",), "apt", os.EX_CONFIG),
    (("notes",), "notes", os.EX_CONFIG),
    ((f"{DATA}/notes",), f"{DATA}/notes", os.EX_CONFIG),
]


@pytest.mark.parametrize(("names", "word", "status"), FOREIGN)
def test_foreign_content(tmp_path, names, word, status):
    """A folder of root's that holds more than a store is not given away, nor is anything in it."""
    fill(tmp_path / "state", *OURS, *names)
    error = refusal(tmp_path / "state")
    assert word in str(error)
    assert error.status == status


def test_folder_of_the_system():
    """`url = "embedded:/var/lib"` is a mistake of the configuration."""
    before = {str(one): one.lstat().st_uid for one in Path("/var/lib").iterdir()}
    with pytest.raises(
        PrivilegeError, match=r"store: /var/lib: it holds what is not ours \(.*, …\)"
    ) as caught:
        prepare(Path("/var/lib"), NOBODY)
    assert caught.value.status == os.EX_CONFIG
    assert {str(one): one.lstat().st_uid for one in Path("/var/lib").iterdir()} == before


@pytest.mark.parametrize("names", [(), ("server.log",)])
def test_folder_that_we_have_not_made(tmp_path, names):
    """An empty folder of root's may be anything; without a lock of ours no store has been there."""
    fill(tmp_path / "state", *names)
    assert "we have not made it; give it to nobody (chown)" in str(refusal(tmp_path / "state"))


def test_folder_of_a_third(tmp_path):
    """It stays his, whatever is in it."""
    fill(tmp_path / "state", *OURS, uid=OTHER)
    assert "belongs to mail, not to nobody" in str(refusal(tmp_path / "state"))


def test_folder_where_others_write(tmp_path):
    """Then it is not said that all in it is of root's making."""
    fill(tmp_path / "state", *OURS)
    (tmp_path / "state").chmod(0o777)
    assert "others may write there" in str(refusal(tmp_path / "state"))
    (tmp_path / "state").chmod(0o700)
    (tmp_path / "state" / DATA).chmod(0o777)
    assert "others may write there" in str(refusal(tmp_path / "state"))


@pytest.mark.parametrize("owner", [0, NOBODY.uid], ids=["root's", "the account's"])
@pytest.mark.parametrize("name", ["server.log", "hybridgrey.pid", "store.sock", AOF, "milter.sock.pid"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_links(tmp_path, owner, name, kind):
    """No file with another name, and none that is a link or a pipe, is taken for ours, in either folder."""
    fill(tmp_path / "state", *OURS, uid=owner)
    precious = tmp_path / "precious"
    precious.touch(0o600)
    path = tmp_path / "state" / name
    path.unlink(missing_ok=True)
    match kind:
        case "link":
            path.symlink_to(precious)
        case "hard link":
            path.hardlink_to(precious)
        case _:
            os.mkfifo(path)
    assert name in str(refusal(tmp_path / "state", "milter.sock.pid"))
    assert precious.stat().st_uid == 0


@pytest.mark.parametrize("owner", [0, NOBODY.uid], ids=["root's", "the account's"])
def test_link_to_a_folder(tmp_path, owner):
    """The folder of the data is no link."""
    fill(tmp_path / "state", "server.lock", uid=owner)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state" / DATA).symlink_to(tmp_path / "elsewhere")
    assert DATA in str(refusal(tmp_path / "state"))


@pytest.mark.parametrize("name", ["server.lock", "server.log", DATA, AOF])
@pytest.mark.parametrize("uid", [0, OTHER])
def test_anothers_file_in_the_accounts_folder(tmp_path, name, uid):
    """There the account may have put a file of root's under any name, so nothing is given away."""
    fill(tmp_path / "state", *OURS, uid=NOBODY.uid)
    os.chown(tmp_path / "state" / name, uid, -1)
    who = "root" if uid == 0 else "mail"
    assert f"{name}: belongs to {who}; give it to nobody (chown)" in str(refusal(tmp_path / "state"))


def test_accounts_folder(tmp_path):
    """What is the account's stays as it is, with foreign content; a socket or pid file may be anybody's."""
    fill(tmp_path / "state", *OURS, "lost+found/x", ".profile", uid=NOBODY.uid)
    os.chown(tmp_path / "state" / "hybridgrey.pid", 0, 0)
    os.chown(tmp_path / "state" / "lost+found", 0, 0)
    before = tree(tmp_path / "state")
    prepare(tmp_path / "state", NOBODY)
    assert tree(tmp_path / "state") == before


@pytest.mark.parametrize("name", ["server.lock", "master.lock"])
def test_store_of_roots_that_still_runs(tmp_path, name):
    """A server of root's is not left to work in a folder of the account's."""
    fill(tmp_path / "state", *OURS)
    with (tmp_path / "state" / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        error = refusal(tmp_path / "state")
    assert "still runs there" in str(error)
    assert error.status == os.EX_UNAVAILABLE


def test_link_of_the_account(tmp_path):
    """A link to the folder is followed if root has made it, not if the account may have."""
    fill(tmp_path / "real", *OURS, uid=NOBODY.uid)
    (tmp_path / "link").symlink_to("real")
    prepare(tmp_path / "link", NOBODY)
    home = tmp_path / "home"
    home.mkdir()
    (home / "link").symlink_to(tmp_path / "real")
    os.chown(home, NOBODY.uid, -1)
    with pytest.raises(PrivilegeError, match="root follows no link"):
        prepare(home / "link", NOBODY)


def test_root_for_itself(tmp_path):
    """Without an account, or with root's, nothing is given away."""
    fill(tmp_path / "state", *OURS, "foreign")
    before = tree(tmp_path / "state")
    prepare(tmp_path / "state", None)
    prepare(tmp_path / "state", privileges.account("root"))
    assert tree(tmp_path / "state") == before
