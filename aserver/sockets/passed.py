"""Descriptors that the service manager passes at a start: its own sockets, and listeners that it kept for this server.

Runs in the master and in the embedding program (sd_listen_fds(3)). The second kind are sockets that a former master
bound and gave to the manager (FDSTORE, sd_notify(3)). If that master was killed, the next master goes on with them, and
with the clients that have connected meanwhile. They replace no `bind`: a socket is used for the address it is bound to.
"""

import contextlib
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Self

from aserver.errors import BindError
from aserver.sockets.listener import Listener
from aserver.sockets.path import PathListener, hidden_name, inode_of

_FIRST_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
#: The names (FDNAME) under which the manager keeps listeners. A socket file's has its device and inode.
_KEPT_NAME = re.compile(r"aserver-kept-\d+(?:-(?P<device>\d+)-(?P<inode>\d+))?")


def name_for(listener: Listener) -> str:
    """The name under which the manager keeps a listener; each of a server's listeners has another name."""
    inode = listener.inode or ()
    return "-".join(map(str, ("aserver-kept", listener.socket.fileno(), *inode)))


def by_manager(environ: Mapping[str, str], pid: int, admin: str | None = None) -> list[tuple[int, str]]:
    """The manager's own sockets: descriptor and name, if its variables are meant for `pid`. Raises BindError.

    Those that `admin` (the setting) names are left out: they replace no `bind`.
    """
    return [
        (number, name)
        for number, name in _passed(environ, pid)
        if not _KEPT_NAME.fullmatch(name) and admin not in (f"fd://{number}", f"fd://{name}")
    ]


def _passed(environ: Mapping[str, str], pid: int) -> list[tuple[int, str]]:
    if environ.get("LISTEN_PID") != str(pid):
        return []  # meant for an ancestor of this process, and inherited
    count = environ.get("LISTEN_FDS", "0")
    if not count.isdecimal():
        raise BindError(f"LISTEN_FDS is {count!r}, not a number; no socket can be taken over from systemd")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    if len(names) != int(count):
        names = [""] * int(count)
    return list(enumerate(names, start=_FIRST_FD))


class Kept:
    """The listeners that were kept and that nothing has taken yet."""

    def __init__(self) -> None:
        self._sockets: list[tuple[socket.socket, tuple[int, int] | None]] = []

    @classmethod
    def found(cls, environ: Mapping[str, str], pid: int) -> Self:
        """Those that the manager passed to this process. Raises BindError."""
        return cls.of(_passed(environ, pid))

    @classmethod
    def of(cls, descriptors: Iterable[tuple[int, str]]) -> Self:
        """Those of the descriptors whose names say that they are listeners of this server."""
        self = cls()
        for number, name in descriptors:
            match = _KEPT_NAME.fullmatch(name)
            if match is not None:
                with contextlib.suppress(OSError):  # closed since, by the program that started this process
                    sock = socket.socket(fileno=number)
                    sock.set_inheritable(False)
                    inode = (int(match["device"]), int(match["inode"])) if match["inode"] else None
                    self._sockets.append((sock, inode))
        return self

    def take(self, family: int, address: tuple[str, int] | str | bytes) -> socket.socket | None:
        """The socket bound to an address (host and port) or to an abstract name (bytes that begin with NUL)."""
        for index, (sock, inode) in enumerate(self._sockets):
            name = sock.getsockname()
            if inode is None and sock.family == family and (name[:2] if isinstance(name, tuple) else name) == address:
                return self._sockets.pop(index)[0]
        return None

    def take_path(self, path: str) -> PathListener | None:
        """The listener at `path`, if the file that was made with it is still there under its hidden name."""
        file = inode_of(hidden_name(path))
        for index, (sock, inode) in enumerate(self._sockets):
            if inode is not None and inode == file:
                del self._sockets[index]
                return PathListener.adopt(sock, path, inode, public=inode_of(path) == inode)
        return None

    def close(self) -> None:
        """Close each listener that no `bind` wants any more; clients in its queue are reset."""
        while self._sockets:
            self._sockets.pop()[0].close()
