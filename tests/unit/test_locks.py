"""A lock that other users cannot take, and whose file does not stay."""

import fcntl
import os
import stat
from pathlib import Path

import pytest

from aserver.locks import LockFile


def test_one_at_a_time_and_nothing_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = LockFile.take(str(path))
    assert first is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "else others could open it, and so lock it"
    assert not os.get_inheritable(first.fd)
    assert LockFile.take(str(path)) is None
    first.release()
    assert not path.exists()
    second = LockFile.take(str(path))
    assert second is not None
    second.release()


def test_what_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(mode=0o600)
    lock = LockFile.take(str(path))
    assert lock is not None
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_holder_removes_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without the look whether the locked file is the one at the path: two would hold the lock."""
    path, real, rivals = tmp_path / "lock", fcntl.flock, list[LockFile]()

    def flock(fd: int, operation: int) -> None:
        if not rivals:
            path.unlink()  # the former holder, between our open and our lock
            monkeypatch.setattr(fcntl, "flock", real)
            rival = LockFile.take(str(path))
            assert rival is not None
            rivals.append(rival)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert LockFile.take(str(path)) is None
    rivals[0].release()


def test_only_an_own_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = LockFile.take(str(path))
    assert lock is not None
    path.unlink()
    path.write_text("another's")
    lock.release()
    assert path.read_text() == "another's"


def test_a_symbolic_link_is_no_lock(tmp_path: Path) -> None:
    path, victim = tmp_path / "lock", tmp_path / "victim"
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        LockFile.take(str(path))
    assert not victim.exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = LockFile.take(str(tmp_path / "lock"))
    assert lock is not None
    lock.release()
