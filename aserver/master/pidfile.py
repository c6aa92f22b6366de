"""The pidfile: written once the listeners are bound, locked while the master lives, removed only if it is still ours.

Runs in the master. The lock, not the number, tells a living master from a stale file: a number can be anybody's by
now. The descriptor is close-on-exec, or a zygote would keep the lock after the master's death (trap 91).
"""

import contextlib
import fcntl
import os
from typing import Self

from aserver.errors import ConfigError


class PidFile:
    """One locked file. Raises ConfigError if it cannot be written, or another master holds it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # `chdir` must not change which file is removed
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"pidfile {path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self.fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self.fd)
            raise ConfigError(
                f"pidfile {path} is held by a running server, pid {holder}; no second one starts"
            ) from None
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:  # a full disk
            self.remove()
            raise ConfigError(f"pidfile {path} cannot be written: {error.strerror}") from None

    @classmethod
    def adopt(cls, path: str, fd: int) -> Self:
        """Go on with a file that this process locked before it was re-executed."""
        self = cls.__new__(cls)
        self.path, self.fd = os.path.abspath(path), fd
        return self

    def remove(self) -> None:
        """Unlink it if the path still leads to our file, and let go of the lock."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                os.unlink(self.path)
        os.close(self.fd)
