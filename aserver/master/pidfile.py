"""The pidfile: written once the listeners are bound, locked while the master lives, removed only if it is still ours.

Runs in the master. The lock, not the number, tells a living master from a stale file: by now the number can be
another process's. Every user may read, and so lock, the pidfile; a hidden file beside it is locked instead (`locks`).
A file that is no pidfile must never be written into or removed.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Self

from aserver import rights
from aserver.errors import ConfigError
from aserver.locks import LockFile

#: Bytes of a pid and its newline, and more than any has.
_PID_BYTES = 32


class PidFile:
    """A locked file. Raises ConfigError if it cannot be written, is no pidfile, or another master holds it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # `chdir` must not change which file is removed
        self.lock: LockFile | None = None
        with contextlib.ExitStack() as undo:
            try:
                self._refuse_other_kinds()
                self.lock = self._take_lock()
                if self.lock is not None:
                    undo.callback(self.lock.release)
                self.fd = rights.open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
                undo.callback(os.close, self.fd)
                if self.lock is None:
                    self._lock_itself()
                self._write()
            except OSError as error:
                raise ConfigError(f"pidfile {path} cannot be written: {error.strerror}") from None
            undo.pop_all()

    @classmethod
    def adopt(cls, path: str, fd: int, lock: int | None) -> Self:
        """Go on with a file that this process locked before it was re-executed."""
        self = cls.__new__(cls)
        self.path, self.fd = os.path.abspath(path), fd
        self.lock = None if lock is None else LockFile(_lock_path(self.path), lock)
        return self

    def remove(self) -> None:
        """Remove the file if the path still leads to it, and release the lock.

        A pidfile behind a symbolic link is emptied instead: the folder that it stands in is not ours.
        """
        with contextlib.suppress(OSError):
            directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                name = os.path.basename(self.path)
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if os.path.samestat(found, os.fstat(self.fd)):
                    os.unlink(name, dir_fd=directory)
                elif stat.S_ISLNK(found.st_mode):
                    os.ftruncate(self.fd, 0)
            finally:
                os.close(directory)
        os.close(self.fd)
        if self.lock is not None:
            self.lock.release()

    # ── steps ──

    def _refuse_other_kinds(self) -> None:
        """Raise ConfigError for anything but a regular file, before a lock is made beside it: not beside /dev/null."""
        with contextlib.suppress(FileNotFoundError):
            _require_regular(self.path, os.stat(self.path))

    def _take_lock(self) -> LockFile | None:
        """Lock the file beside it. None where this user may write the pidfile, but make no file beside it."""
        try:
            lock = LockFile.take(_lock_path(self.path))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and os.access(self.path, os.W_OK):
                return None
            raise
        if lock is None:
            raise self._held()
        return lock

    def _lock_itself(self) -> None:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise self._held() from None

    def _held(self) -> ConfigError:
        holder = ""
        with contextlib.suppress(OSError):
            fd = rights.open_file(self.path, os.O_RDONLY | os.O_NONBLOCK)
            holder = os.pread(fd, _PID_BYTES, 0).decode("ascii", "replace").strip()
            os.close(fd)
        return ConfigError(f"pidfile {self.path} is held by a running server, pid {holder}; no second one starts")

    def _write(self) -> None:
        _require_pid(self.path, self.fd)
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)
        except OSError:  # a full disk
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(self.path), os.fstat(self.fd)):
                    os.unlink(self.path)
            raise


def _lock_path(path: str) -> str:
    """`/run/.app.pid~` for `/run/app.pid`."""
    return str(Path(path).with_name(f".{Path(path).name}~"))


def refuse_other_files(path: str) -> None:
    """Raise ConfigError if the file at `path` is no pidfile, OSError if it cannot be read."""
    fd = rights.open_file(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _require_pid(path, fd)
    finally:
        os.close(fd)


def _require_pid(path: str, fd: int) -> None:
    _require_regular(path, os.fstat(fd))
    before = os.pread(fd, _PID_BYTES, 0)
    if before.strip() and not before.strip().isdigit():
        raise ConfigError(f"pidfile {path} holds something else than a pid, {before!r}; it is left alone")


def _require_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"pidfile {path} is no regular file; it is left alone, and without `pidfile` there is none")
