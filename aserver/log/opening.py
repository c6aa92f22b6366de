"""Open logs, and tell files, pipes, terminals and sockets apart; inherited descriptors stay as they are.

The master opens all logs, as the user that started it. Zygotes and workers get the descriptors and open nothing.
"""

import errno
import fcntl
import os
import stat
from enum import StrEnum
from typing import Literal

from aserver import rights
from aserver.errors import ConfigError


class SinkKind(StrEnum):
    """The kind of file that a descriptor leads to, by fstat(2)."""

    FILE = "file"
    PIPE = "pipe"
    TERMINAL = "terminal"
    SOCKET = "socket"


def kind_of(fd: int) -> SinkKind:
    """The kind of `fd`. /dev/null and other devices count as files: they do not block. Raises OSError (EBADF)."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        return SinkKind.PIPE
    if stat.S_ISSOCK(mode):
        return SinkKind.SOCKET
    return SinkKind.TERMINAL if stat.S_ISCHR(mode) and os.isatty(fd) else SinkKind.FILE


def open_private(fd: int) -> int:
    """A new close-on-exec descriptor above 2 that leads to the same file as `fd`; `fd` and its flags stay as they are.

    The master writes its own lines to such a descriptor, and passes another on: the application could clear
    O_NONBLOCK on that, and a full pipe would then block the master.

    Pipes and terminals are opened again through /proc, which gives a description of our own with O_NONBLOCK. Where that
    fails (no /proc, another owner, a pipe without a reader), and for sockets, the descriptor is a duplicate, and
    `Descriptor` asks poll(2) before each write or uses MSG_DONTWAIT.
    A regular file is always duplicated. Opened again without O_APPEND it would be overwritten from its start, while
    duplicates share an offset, which write(2) moves atomically.
    """
    if kind_of(fd) in (SinkKind.PIPE, SinkKind.TERMINAL):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
        try:
            return _above_stdio(os.open(f"/proc/self/fd/{fd}", flags))
        except OSError:
            pass
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def open_log(path: str, *, which: Literal["error", "access"]) -> int:
    """Open a log in the master: `-` is standard error or output, else a path. The caller owns the descriptor.

    A closed standard descriptor becomes /dev/null. Raises ConfigError, which names the setting.
    """
    try:
        return _open(path, which)
    except OSError as error:
        raise ConfigError(f"{which}log {path} cannot be opened: {error.strerror}") from None


def _open(path: str, which: Literal["error", "access"]) -> int:
    if path == "-":
        try:
            return open_private(2 if which == "error" else 1)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            path = os.devnull
    # O_NONBLOCK is for FIFOs. A FIFO without a reader refuses writers (ENXIO), so it is opened to read and write.
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        fd = rights.open_file(path, flags | os.O_WRONLY)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        fd = rights.open_file(path, flags | os.O_RDWR)
    if kind_of(fd) is SinkKind.FILE:
        os.set_blocking(fd, True)  # a file does not care, but `capture_output` gives it to subprocesses
    return _above_stdio(fd)


def _above_stdio(fd: int) -> int:
    """Move a descriptor out of 0-2: a process that was started with closed standard streams gets those numbers."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved
