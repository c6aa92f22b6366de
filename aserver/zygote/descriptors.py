"""Descriptors that loading the app has left open and that processes cannot share: connections, loops, SQLite databases.

Runs in the zygote (and in `aserver check`), called by `preload`. It changes nothing except for its patch of
`run_forever`, which it undoes. `make_private` runs in a worker after the fork, for a loop that would be shared.
"""

import contextlib
import gc
import os
import select
import socket
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from aserver import unix

_LOOPS = {"anon_inode:[eventpoll]": "epoll", "anon_inode:[io_uring]": "io_uring"}
#: https://www.sqlite.org/fileformat.html
_SQLITE_MAGIC = b"SQLite format 3\0"


class LoopWatch:
    """While entered, notes the loops of asyncio that run.

    uvloop's are left out, because they cannot be made private.
    """

    def __init__(self) -> None:
        # Not imported, because the zygote must have no loop; importer/application.py has loaded the module.
        self._kind: Any = sys.modules["asyncio.base_events"].BaseEventLoop
        self._ran: weakref.WeakSet[Any] = weakref.WeakSet()

    def __enter__(self) -> Self:
        self._original: Callable[..., None] = self._kind.run_forever
        original, ran = self._original, self._ran

        def run_forever(loop: Any) -> None:  # run_until_complete and asyncio.run call it, too
            ran.add(loop)
            original(loop)

        self._kind.run_forever = run_forever
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._kind.run_forever = self._original

    def unused(self) -> list[Any]:
        """The loops that are open and never ran, such as a loop made for a Lock.

        Call `make_private` for each in a child.
        """
        if not unix.LINUX:  # elsewhere their descriptors are not seen
            return []
        # By the type: isinstance() asks the object for its class, which may run the app's code.
        loops = [each for each in gc.get_objects() if issubclass(type(each), self._kind)]
        return [each for each in loops if each not in self._ran and _is_new(each)]


def _is_new(loop: Any) -> bool:
    """Does the loop watch its own pipe and nothing else? Then it is not closed, and no reader was added."""
    selector: Any = getattr(loop, "_selector", None)
    watched = selector.get_map() if hasattr(selector, "fileno") else None
    return watched is not None and len(watched) == 1


def make_private(loop: Any) -> None:
    """Give a loop that never ran a poll descriptor and wake-up pipe of this forked child, by the old numbers.

    Otherwise all workers would share the descriptors that any of them watches, and wake each other's loops.
    """
    with select.epoll() as poll, contextlib.ExitStack() as ends:
        for old, new in zip((loop._ssock, loop._csock), unix.stream_pair(), strict=True):
            os.dup2(ends.enter_context(new).fileno(), old.fileno(), inheritable=False)
        poll.register(loop._ssock.fileno(), select.EPOLLIN)  # before it runs, a loop watches nothing else
        os.dup2(poll.fileno(), loop._selector.fileno(), inheritable=False)


def descriptor_hazards(before: dict[int, str], unused: Iterable[Any]) -> list[str]:
    """A clause for each descriptor that was not there `before` and that all workers would share after a fork.

    `unused` are loops that will be made private.
    """
    found = []
    now = {fd: target for fd, target in unix.open_fds().items() if before.get(fd) != target}
    private = {loop._selector.fileno() for loop in unused}
    for fd, target in now.items():
        if target in _LOOPS and fd not in private:
            found.append(f"an event loop that was not closed (descriptor {fd}, {_LOOPS[target]})")
        elif target.startswith("socket:") and (peer := _peer(fd)):
            found.append(f"a connected socket to {peer} (descriptor {fd})")
    databases = {target for fd, target in now.items() if _is_sqlite(fd, target)} | set(_sqlite_connections())
    found += [f"an open SQLite database, {path}, whose locks a fork loses" for path in sorted(databases)]
    return found


def _is_sqlite(fd: int, target: str) -> bool:
    """Is the file behind `fd` a database? It is not opened anew, because closing it would end SQLite's locks."""
    if not target.startswith("/"):
        return False
    try:
        return os.pread(fd, len(_SQLITE_MAGIC), 0) == _SQLITE_MAGIC
    except OSError:  # a pipe, a device, or opened only for writing
        return False


def _sqlite_connections() -> Iterator[str]:
    """The files of open connections of Python's own module. A new database is an empty file until it is written."""
    sqlite3 = sys.modules.get("sqlite3")
    if sqlite3 is None:
        return
    for each in gc.get_objects():
        if issubclass(type(each), sqlite3.Connection):
            try:
                rows = each.execute("PRAGMA database_list").fetchall()
            except sqlite3.Error:  # closed, or of another thread, which is a hazard already
                continue
            yield from (str(path) for _, _, path, *_ in map(tuple, rows) if path)


def _peer(fd: int) -> str:
    """The peer's address of a connected socket; empty without a peer, and for a socketpair, which has no names."""
    duplicate = os.dup(fd)
    try:
        with socket.socket(fileno=duplicate) as sock:
            peer = sock.getpeername()
    except OSError:
        return ""
    if isinstance(peer, tuple):
        return f"{peer[0]}:{peer[1]}"
    return peer.decode("utf-8", "replace") if isinstance(peer, bytes) else str(peer)
