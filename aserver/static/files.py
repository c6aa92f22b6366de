"""From a request's path to an open file inside a directory, or a status; nothing outside of it, by any path.

Runs in a thread of the loop's executor: each call may touch the disk. The only thing that it trusts is the directory's
name in the settings.
"""

import contextlib
import errno
import os
import stat
from dataclasses import replace

from aserver.static.answers import ENCODINGS, Representation

#: Bytes in a read: so many that the hop to the executor (about 60 us) is small beside it.
CHUNK = 256 * 1024
#: Bytes of the longest path that is looked up.
LONGEST = 4096
#: For a directory, the file in it that is served.
INDEX = "index.html"


class OpenFile:
    """An open file with its facts. It closes itself if a request is cancelled while a thread opens it."""

    def __init__(self, descriptor: int, file: Representation) -> None:
        self.descriptor = descriptor
        self.file = file

    def close(self) -> None:
        """Close it, once."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


def open_file(directory: str, path: str, accepts: frozenset[str]) -> OpenFile | int:
    """Open the file that `path`, without a slash at its start, names inside `directory`; or say the status.

    Of files beside it that hold it compressed the best in a coding of `accepts` is taken. The status is 404 for what
    is not there, not a regular file, hidden (a name that begins with a dot), or elsewhere by a symbolic link; 403 for
    what this process may not read; 301 for a directory if the path lacks the slash at its end.
    """
    names = path.split("/")
    if names[-1] == "":
        names[-1] = INDEX
    if len(path) > LONGEST or any(not name or name[0] == "." or "\0" in name for name in names):
        return 404
    try:
        plain = _open(directory, names)
    except PermissionError:
        return 403
    except (OSError, ValueError):  # a name that the file system cannot have
        return 404
    if isinstance(plain, OpenFile):
        return _best(plain, directory, names, accepts)
    return 301 if stat.S_ISDIR(plain) and not path.endswith("/") else 404


def _best(plain: OpenFile, directory: str, names: list[str], accepts: frozenset[str]) -> OpenFile:
    """The file, or a file beside it that holds it compressed, if that is not older."""
    best = plain
    for ending, encoding in ENCODINGS.items():
        with contextlib.suppress(OSError):
            other = _open(directory, [*names[:-1], names[-1] + ending])
            if isinstance(other, OpenFile) and other.file.mtime_ns >= plain.file.mtime_ns:
                plain.file = replace(plain.file, varies=True)
                if encoding in accepts and best is plain:
                    other.file = replace(other.file, name=names[-1], encoding=encoding, varies=True)
                    best = other
    return best


def _open(directory: str, names: list[str]) -> OpenFile | int:
    """Open the regular file `names` inside `directory`; or return the mode if it is no regular file. Raises OSError."""
    descriptor = _open_inside(directory, names)
    status = os.fstat(descriptor)
    found = OpenFile(descriptor, Representation(names[-1], status.st_size, status.st_mtime_ns))
    return found if stat.S_ISREG(status.st_mode) else status.st_mode


def _open_inside(directory: str, names: list[str]) -> int:
    """Open `names` below `directory`. Symbolic links may lead to places inside of it only. Raises OSError.

    The links are resolved first. Then each part is opened in the part before, and none may be a link any more: so a
    link that is put there meanwhile leads nowhere.
    """
    root = os.path.realpath(directory)
    real = os.path.realpath(os.path.join(root, *names), strict=True)
    if os.path.commonpath([root, real]) != root:
        raise FileNotFoundError(errno.ENOENT, "outside of the directory", real)
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in os.path.relpath(real, root).split("/"):
        try:
            # Non-blocking, because open(2) of a FIFO would wait for a writer.
            below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def read(descriptor: int, start: int, end: int) -> bytes:
    """The next bytes, at most CHUNK. Raises OSError if the file has become shorter than `end`."""
    piece = os.pread(descriptor, min(CHUNK, end - start), start)
    if not piece and start < end:
        raise OSError(errno.EIO, f"a static file ended at {start} bytes, {end} were announced")
    return piece
