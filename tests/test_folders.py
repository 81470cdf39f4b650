"""Which way root goes, and what it makes on it."""

import os
import stat
from pathlib import Path

import pytest

from hybridgrey import folders

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
OTHER = 65534


@pytest.fixture(params=["as it is", "without O_PATH"], autouse=True)
def system(request, monkeypatch):
    """As on a system that has no O_PATH."""
    if request.param != "as it is":
        monkeypatch.setattr(folders, "_STAND", os.O_DIRECTORY | os.O_CLOEXEC)


def reached(path):
    with folders.opened(path) as folder:
        status = os.fstat(folder.fd)
        return folder.loose, (status.st_dev, status.st_ino)


def inode(path):
    status = path.stat()
    return status.st_dev, status.st_ino


# The mode and owner of the folder that a link, or a folder, stands in; whether the path is loose.
PLACES = [
    (0o755, 0, 0, False),
    (0o775, 0, 0, False),  # root's group
    (0o775, 0, OTHER, True),
    (0o777, 0, 0, True),
    (0o1777, 0, 0, False),  # what is root's in it stays
    (0o1775, 0, OTHER, False),
    (0o700, OTHER, 0, True),
    (0o1777, OTHER, 0, True),
]


@pytest.mark.parametrize(("mode", "uid", "gid", "loose"), PLACES)
@pytest.mark.parametrize("relative", [True, False])
def test_links_of_root_only(tmp_path, mode, uid, gid, loose, relative):
    """A link is followed where nobody but root can have put it; a folder is gone through everywhere."""
    place = tmp_path / "place"
    for made in (place / "folder" / "below", tmp_path / "target" / "below"):
        made.mkdir(parents=True)
    (place / "link").symlink_to("../target" if relative else tmp_path / "target")
    os.chown(place, uid, gid)
    place.chmod(mode)
    assert reached(place / "folder" / "below") == (loose, inode(place / "folder" / "below"))
    if not loose:
        assert reached(place / "link" / "below") == (False, inode(tmp_path / "target" / "below"))
    else:
        with pytest.raises(OSError, match="root follows no link"):
            reached(place / "link" / "below")
        with pytest.raises(OSError, match="root follows no link"):
            reached(place / "link")


def test_anothers_link_in_a_sticky_folder(tmp_path):
    """In /tmp everybody may make a link."""
    tmp_path.chmod(0o1777)
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    os.chown(tmp_path / "link", OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(OSError, match="root follows no link"):
        reached(tmp_path / "link")


def test_chains_have_an_end(tmp_path):
    """Links to links are followed, a ring of them is not."""
    (tmp_path / "end").mkdir()
    for number in range(5):
        (tmp_path / str(number)).symlink_to(tmp_path / (str(number + 1) if number < 4 else "end"))
    assert reached(tmp_path / "0")[1] == inode(tmp_path / "end")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="link"):
        reached(tmp_path / "a")


@pytest.mark.parametrize("name", ["missing", "file"])
def test_no_folder(tmp_path, name):
    """What is missing, or no folder, is the error that everybody knows; no descriptor stays open."""
    (tmp_path / "file").touch()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError if name == "missing" else NotADirectoryError):
        reached(tmp_path / name / "below")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_made_with_owner(tmp_path):
    """What is made gets its owner, those above it and what was there do not."""
    path = tmp_path / "a" / "b"
    assert folders.made(path, 0o700, uid=OTHER, gid=OTHER, parents=True)
    assert not folders.made(path, 0o755, uid=1, gid=1)
    assert not folders.made(path.parent, 0o755, uid=1)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (OTHER, OTHER, 0o700)
    assert path.parent.stat().st_uid == 0
    with pytest.raises(FileNotFoundError):
        folders.made(tmp_path / "c" / "d", 0o700)


@pytest.mark.parametrize("kind", ["anothers", "open", "full", "link"])
def test_exchanged_while_it_is_made(tmp_path, kind, monkeypatch):
    """What comes in the place of the new folder is taken only if it is as good as that."""
    (tmp_path / "target").mkdir()
    real = os.mkdir

    def mkdir(name, mode, dir_fd):
        if kind == "link":
            os.symlink("target", name, dir_fd=dir_fd)
            return
        real(name, mode, dir_fd=dir_fd)
        path = tmp_path / name
        if kind == "anothers":
            os.chown(path, OTHER, -1)
        elif kind == "open":
            path.chmod(0o777)
        else:
            (path / "foreign").touch()

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="exchanges folders" if kind != "link" else "irector"):
        folders.made(tmp_path / "new", 0o755, uid=OTHER)
    assert (tmp_path / "target").stat().st_uid == 0


def test_filled_by_another_starter(tmp_path, monkeypatch):
    """A folder that is not given away may be in use by the time it is opened."""
    real = os.mkdir

    def mkdir(name, mode, dir_fd):
        real(name, mode, dir_fd=dir_fd)
        (tmp_path / name / "master.lock").touch()

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert folders.made(tmp_path / "new", 0o700)
