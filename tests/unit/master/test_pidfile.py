"""The pidfile: whose it is, what it may replace, and that no other user can keep a server from starting by it."""

import fcntl
import os
from pathlib import Path

import pytest

from aserver.errors import ConfigError
from aserver.master.pidfile import PidFile


def test_written_locked_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    pidfile = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(ConfigError, match=rf"is held by a running server, pid {os.getpid()}; no second one starts"):
        PidFile(str(path))
    pidfile.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_somebody_who_may_read_it_hinders_nobody(tmp_path: Path) -> None:
    """Fails with flock(2) on the pidfile itself, which everybody may open and lock, or wait to lock."""
    path = tmp_path / "app.pid"
    path.write_text("4711\n")
    with path.open() as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        pidfile = PidFile(str(path))
        assert path.read_text() == f"{os.getpid()}\n"
        pidfile.remove()


@pytest.mark.parametrize("found", ["", "4711", "4711\n", " 4711 \n"])
def test_a_stale_one_is_taken_over(tmp_path: Path, found: str) -> None:
    path = tmp_path / "app.pid"
    path.write_text(found)
    pidfile = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.remove()
    assert not path.exists()


@pytest.mark.parametrize("found", ["127.0.0.1 localhost\n", "4711 4712\n", "\0"])
def test_what_holds_no_pid_is_left_alone(tmp_path: Path, found: str) -> None:
    """A slip in the settings, such as /etc/hosts. Fails with the file emptied, and removed at the stop."""
    path = tmp_path / "hosts"
    path.write_text(found)
    with pytest.raises(ConfigError, match="holds something else than a pid"):
        PidFile(str(path))
    assert path.read_text() == found
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_left_alone(tmp_path: Path) -> None:
    """Fails with /dev/null removed, by root, for everybody."""
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    with pytest.raises(ConfigError, match="is no regular file; it is left alone"):
        PidFile(str(null))
    assert list(tmp_path.iterdir()) == [null]
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device")
def test_a_device_itself_is_left_alone(tmp_path: Path) -> None:
    """As above, at the very path; a device of the test's own, in case that it fails."""
    null = tmp_path / "null"
    os.mknod(null, 0o20666, os.makedev(1, 3))
    with pytest.raises(ConfigError, match="is no regular file"):
        PidFile(str(null))
    assert list(tmp_path.iterdir()) == [null]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_left_alone(tmp_path: Path, make: object) -> None:
    path = tmp_path / "other"
    assert callable(make)
    make(path)
    with pytest.raises(ConfigError, match="is no regular file"):
        PidFile(str(path))
    assert list(tmp_path.iterdir()) == [path]


def test_through_an_operator_s_link_it_is_written_and_emptied(tmp_path: Path) -> None:
    """The link is the operator's, and stays. Fails if it is what is removed at the stop."""
    (tmp_path / "elsewhere").mkdir()
    link, file = tmp_path / "app.pid", tmp_path / "elsewhere/app.pid"
    link.symlink_to(file)
    pidfile = PidFile(str(link))
    assert file.read_text() == f"{os.getpid()}\n"
    pidfile.remove()
    assert link.is_symlink()
    assert file.read_text() == ""


def test_one_that_another_server_has_put_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    pidfile = PidFile(str(path))
    path.unlink()
    path.write_text("4711\n")
    pidfile.remove()
    assert path.read_text() == "4711\n"


def test_where_only_the_file_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an operator has made /run/app.pid for a user: then it is the file itself that is locked."""
    path = tmp_path / "app.pid"
    path.touch()

    def refuse(_path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("aserver.locks.LockFile.take", refuse)
    pidfile = PidFile(str(path))
    with pytest.raises(ConfigError, match="is held by a running server"):
        PidFile(str(path))
    pidfile.remove()
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        PidFile(str(path))
