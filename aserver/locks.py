"""A lock between servers of the same user, which other users cannot take.

Used by the master and the embedding program. The lock is a file that only its owner may open, made when the lock is
taken and removed when it is released: flock(2) needs no more than a descriptor, so every user with the right to read a
file can lock it, and keep a server from starting.
"""

import contextlib
import fcntl
import os
from typing import Self

from aserver import rights

#: If the file is removed this often between our open and our lock, it counts as another server's.
_TRIES = 100


class LockFile:
    """A lock that is held. `fd` is close-on-exec: a zygote would keep the lock after the master's death."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def take(cls, path: str) -> Self | None:
        """Return the lock, or None if another process holds it. Raises OSError if the file cannot be made or opened.

        On a file system without locks the lock counts as taken by us.
        """
        for _ in range(_TRIES):
            fd = rights.open_file(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            except OSError:
                pass
            # Its holder may have removed the file between our open and our lock; another may have made the next.
            if _is_at(path, fd):
                return cls(path, fd)
            os.close(fd)
        return None

    def release(self) -> None:
        """Remove the file, then close it: the other way round, another server's file could be removed."""
        with contextlib.suppress(OSError):
            if _is_at(self.path, self.fd):
                os.unlink(self.path)
        os.close(self.fd)


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
