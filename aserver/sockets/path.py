"""Ownership of a unix socket's path: never stolen from a live server, never lost, removed by its maker only.

Runs in the master and in the embedding program. It must never unlink a path whose inode is not its own,
and never leave a moment in which clients of a path that was there find none.

The life of `/run/a.sock`:

    bind      the socket is bound as `/run/.a.sock~`, and gets its owner and mode there, where no client can
              connect to it, because it does not listen
    listen    listen(2), then the same inode is linked to `/run/a.sock`; over a stale path by rename(2), so
              clients see the old inode or the new inode and never none. The hidden name stays as a spare
    tend      if the public path was deleted, the spare is linked back: same inode, same queue
    close     both names are removed, if they are still our inode

A process that changes either of the two names holds a lock, `.a.sock~lock` (`locks`). Without it, two servers that
start together could both find the path stale, and the second would rename over the first, which by then is live.
While the socket is open its inode cannot be reused, so (device, inode) is proof of identity.

File systems without hard links (link(2) gives EPERM or ENOTSUP): the hidden name is renamed to the public name
and there is no spare; a path that is deleted there is only reported.
"""

import contextlib
import errno
import grp
import os
import pwd
import select
import socket
import stat
import struct
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Self

from aserver.errors import BindError
from aserver.locks import LockFile
from aserver.sockets import port_owner
from aserver.sockets.listener import Listener

SUN_PATH_BYTES = 107  # unix(7): sun_path has 108 bytes, and the last is a NUL
_LOCK_PATIENCE = 2.0  # seconds; the lock is held for microseconds
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


class PathUse(Enum):
    """The state of a path at which a socket is wanted."""

    FREE = "free"
    STALE = "stale"  # a socket that no process has open: left over by a server that was killed
    LIVE = "live"  # a server accepts, or its queue is full
    BOUND = "bound"  # a server has bound it and does not listen yet
    OTHER = "other"  # no stream socket, or this process may not look at it


#: The meaning of connect(2)'s results for a socket file. All others (EPROTOTYPE: datagrams, EACCES) are OTHER.
_CONNECT_RESULTS = {
    0: PathUse.LIVE,
    errno.EAGAIN: PathUse.LIVE,  # its queue is full
    errno.EINPROGRESS: PathUse.LIVE,
    errno.ENOENT: PathUse.FREE,
    errno.ECONNREFUSED: PathUse.STALE,
}


class _PathPhase(Enum):
    HIDDEN = "hidden"  # bound under the hidden name, not listening
    PUBLIC = "public"
    LOST = "lost"  # the public path is gone or another server's, and that has been reported
    CLOSED = "closed"


class PathListener(Listener):
    """A listener at a path that this object makes, keeps and removes."""

    def __init__(self, path: str, *, mode: int | None, owner: str | None, group: str | None) -> None:
        """Bind under the hidden name. Raises BindError, and then leaves nothing behind."""
        self._path = path
        self._spare = hidden_name(path)
        check_length(path)
        uid, gid = user_id(owner, path), group_id(group, path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _names_lock(path):
                self._require_free(self._path)
                if self._require_free(self._spare) is PathUse.STALE:
                    os.unlink(self._spare)
                sock.bind(self._spare)
            self._inode = self._bound_inode()
            self._dress(mode, uid, gid)
        except BindError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            raise BindError(f"cannot bind unix:{path}: {_reason(error, path)}") from error
        super().__init__(sock, f"unix:{path}", path)
        self._phase = _PathPhase.HIDDEN

    @classmethod
    def adopt(cls, sock: socket.socket, path: str, inode: tuple[int, int], *, public: bool) -> Self:
        """Go on with a socket that this process bound before it was re-executed."""
        self = cls.__new__(cls)
        Listener.__init__(self, sock, f"unix:{path}", path)
        self._path, self._spare, self._inode = path, hidden_name(path), inode
        self._phase = _PathPhase.PUBLIC if public else _PathPhase.HIDDEN
        return self

    @property
    def inode(self) -> tuple[int, int] | None:
        """(device, inode) of the socket file."""
        return self._inode

    @property
    def public(self) -> bool:
        """Whether the path has appeared."""
        return self._phase in (_PathPhase.PUBLIC, _PathPhase.LOST)

    def listen(self, backlog: int) -> None:
        """Listen, then let the public path appear. Raises BindError if another server was faster."""
        super().listen(backlog)
        if self._phase is not _PathPhase.HIDDEN:
            return
        try:
            with _names_lock(self._path):
                self._publish()
        except OSError as error:
            raise BindError(f"cannot put the socket at {self.name}: {_reason(error, self._path)}") from error
        self._phase = _PathPhase.PUBLIC

    def tend(self) -> str | None:
        """Put a deleted public path back; a sentence for the log, once per incident."""
        if self._phase not in (_PathPhase.PUBLIC, _PathPhase.LOST):
            return None
        found = inode_of(self._path)
        if found == self._inode:
            self._phase = _PathPhase.PUBLIC
            self._restore_spare()
            return None
        reported, self._phase = self._phase is _PathPhase.LOST, _PathPhase.LOST
        if found is not None:
            return None if reported else f"{self.name} was replaced by somebody else's; new clients do not reach us"
        try:
            if inode_of(self._spare) != self._inode:
                raise FileNotFoundError(errno.ENOENT, "no spare name of the socket is left")
            os.link(self._spare, self._path)  # fails if another process was faster; never replaces
        except OSError as error:
            return (
                None
                if reported
                else (
                    f"{self.name} was deleted and cannot be put back ({error.strerror}); "
                    "new clients do not reach us until aserver is restarted"
                )
            )
        self._phase = _PathPhase.PUBLIC
        return f"{self.name} was deleted by somebody; it is back with the same socket, and no connection was lost"

    def close(self) -> None:
        """Remove the names that are still ours, then close the socket."""
        if self._phase is not _PathPhase.CLOSED:
            self._phase = _PathPhase.CLOSED
            with contextlib.suppress(OSError, BindError), contextlib.ExitStack() as held:
                with contextlib.suppress(
                    OSError
                ):  # a full disk has no room for a lock, and must not keep a dead socket
                    held.enter_context(_names_lock(self._path))
                self._unlink_own()
        super().close()

    # ── steps ──

    def _require_free(self, path: str) -> PathUse:
        """Return FREE or STALE. Raises BindError for any other state."""
        use, peer_pid = probe(path)
        if use in (PathUse.FREE, PathUse.STALE):
            return use
        subject = f"unix:{self._path}" if path == self._path else f"unix:{self._path} (hidden name {path})"
        if use is PathUse.OTHER:
            raise BindError(f"cannot bind {subject}: there is a {_kind(path)}; it is left alone")
        owner = port_owner.of_unix({path, self._path, self._spare}, peer_pid) or "another process"
        state = "is already running there" if use is PathUse.LIVE else "has bound it and is about to listen"
        raise BindError(f"cannot bind {subject}: a server {state}, {owner}")

    def _bound_inode(self) -> tuple[int, int]:
        """(device, inode) of the socket that was bound just now. Raises BindError if another file is in its place."""
        found = os.lstat(self._spare)
        if not stat.S_ISSOCK(found.st_mode) or found.st_nlink != 1:
            raise BindError(f"cannot bind unix:{self._path}: its hidden name {self._spare} was exchanged meanwhile")
        return found.st_dev, found.st_ino

    def _dress(self, mode: int | None, uid: int, gid: int) -> None:
        """Set the owner, then the mode, because chown(2) may clear mode bits. Removes the hidden name on failure."""
        try:
            if uid != -1 or gid != -1 or mode is not None:
                with _itself(self._spare, self._inode) as place:
                    if uid != -1 or gid != -1:
                        os.chown(place, uid, gid)
                    if mode is not None:
                        os.chmod(place, mode)
        except OSError as error:
            self._unlink_own()
            wanted = ", ".join(
                f"{name} {value}"
                for name, value in (("owner", uid), ("group", gid), ("mode", None if mode is None else f"{mode:04o}"))
                if value not in (-1, None)
            )
            raise BindError(f"cannot give unix:{self._path} its {wanted}: {_reason(error, self._path)}") from error

    def _publish(self) -> None:
        """Make the listening inode appear at the public path; the lock for the names is held."""
        if inode_of(self._spare) != self._inode:
            raise BindError(
                f"cannot listen on {self.name}: its hidden name {self._spare} was taken or removed meanwhile"
            )
        use = self._require_free(self._path)
        try:
            if use is PathUse.FREE:
                os.link(self._spare, self._path)
                return
            # rename(2) of the spare itself would leave none, so a third name goes over the stale name.
            third = self._spare + "new"
            Path(third).unlink(missing_ok=True)
            os.link(self._spare, third)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            third = self._spare
        os.rename(third, self._path)

    def _restore_spare(self) -> None:
        """Cleaners of old files may take the hidden name alone; without it the public name is not safe."""
        if inode_of(self._spare) is None:
            with contextlib.suppress(OSError):
                os.link(self._path, self._spare)

    def _unlink_own(self) -> None:
        for path in (self._path, self._spare):
            if inode_of(path) == self._inode:
                os.unlink(path)


def check_length(path: str) -> None:
    """Raise BindError if a socket cannot be at `path`, which is absolute, because it is too long (unix(7))."""
    spare = hidden_name(path)
    length, hidden = len(os.fsencode(path)), len(os.fsencode(spare))
    if max(length, hidden) > SUN_PATH_BYTES:
        raise BindError(
            f"cannot bind unix:{path}: the path has {length} bytes, and {hidden} as the hidden name "
            f"{Path(spare).name!r} under which the socket is prepared; the system allows {SUN_PATH_BYTES}"
        )


def hidden_name(path: str) -> str:
    """`/run/.a.sock~` for `/run/a.sock`: two bytes longer, and recognisable in a list of the directory."""
    public = Path(path)
    return str(public.with_name(f".{public.name}~"))


def probe(path: str) -> tuple[PathUse, int]:
    """The state of `path`, and the pid of the process that listens there (SO_PEERCRED; 0 if unknown).

    It connects, and closes the connection at once. A socket that is bound and does not listen yet refuses exactly as a
    stale path does; only /proc/net/unix tells them apart (Linux, same network namespace).
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return PathUse.OTHER, 0
    except FileNotFoundError:
        return PathUse.FREE, 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)  # a full queue would block for as long as the server is stuck
        result = client.connect_ex(path)
        pid = peer_pid(client) if result == 0 else 0
    use = _CONNECT_RESULTS.get(result, PathUse.OTHER)
    if use is PathUse.STALE and port_owner.bound_unix({path}):
        use = PathUse.BOUND
    return use, pid


def peer_pid(client: socket.socket) -> int:
    """The pid that called listen(2) on the other end of a connected unix socket; 0 if unknown."""
    option = getattr(socket, "SO_PEERCRED", None)  # Linux
    if option is None:
        return 0
    pid, _uid, _gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(pid)


@contextlib.contextmanager
def _names_lock(path: str) -> Iterator[None]:
    """Hold the lock for the names of `path`. Raises BindError if another process keeps it, OSError if it fails.

    A file of its own, because every user with the right to read the directory could lock that (flock(2)).
    """
    name = hidden_name(path) + "lock"
    deadline = time.monotonic() + _LOCK_PATIENCE
    while (lock := _take(name)) is None:
        if time.monotonic() > deadline:
            raise BindError(
                f"cannot change unix:{path}: another process holds {name} for {_LOCK_PATIENCE:g} s; "
                "it is there only while a server makes or removes its socket"
            )
        select.select([], [], [], 0.005)
    try:
        yield
    finally:
        lock.release()


def _take(name: str) -> LockFile | None:
    try:
        return LockFile.take(name)
    except PermissionError:
        if os.path.lexists(name):  # another user's server is at work there
            return None
        raise


@contextlib.contextmanager
def _itself(path: str, inode: tuple[int, int]) -> Iterator[str]:
    """A path that leads to this very inode, even if `path` gets another file or link meanwhile. Raises OSError.

    It is made with O_PATH and /proc, because a socket cannot be opened. Without them (macOS, a chroot) it is `path`.
    """
    if not hasattr(os, "O_PATH"):
        yield path
        return
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != inode:
            raise FileNotFoundError(errno.ENOENT, f"{path} was exchanged meanwhile")
        place = f"/proc/self/fd/{fd}"
        yield place if os.path.exists(place) else path
    finally:
        os.close(fd)


def inode_of(path: str) -> tuple[int, int] | None:
    """Device and inode of the socket at `path` itself; None if there is nothing or it cannot be seen."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _kind(path: str) -> str:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return "file that cannot be looked at"
    kinds = ((stat.S_ISLNK, "symbolic link"), (stat.S_ISDIR, "directory"), (stat.S_ISREG, "regular file"))
    if stat.S_ISSOCK(mode):
        return "socket of another kind, or one that we may not connect to"
    return next((f"{name}, not a socket" for test, name in kinds if test(mode)), "special file, not a socket")


def _reason(error: OSError, path: str) -> str:
    directory = Path(path).parent
    if error.errno == errno.ENOENT:
        return f"the directory {directory} does not exist"
    if error.errno in (errno.EACCES, errno.EROFS):
        return f"{error.strerror} in the directory {directory} (uid {os.geteuid()})"
    if error.errno == errno.EPERM:
        return f"{error.strerror}; only root may give files away (uid {os.geteuid()})"
    return error.strerror or str(error)


def user_id(name: str | None, path: str) -> int:
    """The uid of a user by name or number; -1, chown(2)'s "as it is", for None. Raises BindError."""
    if name is None or name.isdigit():
        return -1 if name is None else int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise BindError(f"cannot bind unix:{path}: uds_owner {name!r} is no user of this system") from None


def group_id(name: str | None, path: str) -> int:
    """The gid of a group by name or number; -1 for None. Raises BindError."""
    if name is None or name.isdigit():
        return -1 if name is None else int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise BindError(f"cannot bind unix:{path}: uds_group {name!r} is no group of this system") from None
