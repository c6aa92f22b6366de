"""The descriptor under a sink: how whole lines get into a file, a pipe, a terminal or a socket.

Every process has its own; only `sink.Sink` calls it. It must never wait for a reader, and never set O_NONBLOCK on an
inherited description: the shell that started the server shares that of descriptors 0-2.

To a regular file an O_APPEND write of any length is not mixed with others. To a pipe, write(2) is all-or-nothing up to
PIPE_BUF (pipe(7)), so longer lines are cut there. A terminal that is slow may take half a line: a lock on bytes of the
terminal (fcntl(2)) keeps the other processes from writing until the rest is written. The lock ends with its process.
"""

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import time

from aserver import terminal
from aserver.ipc.board import HalfLine
from aserver.log.opening import SinkKind

#: Bytes. POSIX promises 512 for PIPE_BUF, Linux gives 4096. Where it is less (macOS), lines of up to 4096 are written
#: all the same: a line of 512 would say too little, and mixed lines are the smaller harm.
PIPE_LIMIT = max(select.PIPE_BUF, 4096)
#: Bytes. A UNIX stream socket takes up to 32 KiB as a piece (net/unix/af_unix.c); half of that is safe anywhere.
SOCKET_LIMIT = 16 << 10

#: Two locks on a terminal, each on a byte of a file that has no bytes: for the moment of a write, and for as long as
#: half a line is written.
_GATE, _LINE = 0, 1
#: Seconds to wait for the `_GATE` of another process before the terminal counts as blocked. A process holds it for some
#: system calls, unless it is preempted or killed there. Without a wait, a worker that was killed while it was blocked
#: lost its last lines, in 1 of 6 storms on a busy machine, though the terminal had room. Only an open sink waits.
GATE_PATIENCE = 0.1
_GATE_PAUSE = 0.0002
#: Locks that belong to an open file description; only Linux has them.
_DESCRIPTION_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None) if struct.calcsize("P") == 8 else None


class Descriptor:
    """Owns `fd`; `send` writes once. `limit`: so many bytes are sure to stay together; None for any number."""

    def __init__(self, fd: int, kind: SinkKind) -> None:
        self.fd = fd
        self.kind = kind
        self._spare: list[int] = []
        self._lock_fd = -1
        #: Whether some process has half a line out on this terminal; set by `Logging.share_half_lines`.
        self.half: HalfLine | None = None
        self._adopt()

    def _adopt(self) -> None:
        kind = self.kind
        self._socket: socket.socket | None = None
        self.limit: int | None = None
        if kind is SinkKind.SOCKET:
            self.limit = SOCKET_LIMIT
            # With a default timeout, which user code may have set, a new socket object would make the description
            # non-blocking for every process that shares it.
            default = socket.getdefaulttimeout()
            socket.setdefaulttimeout(None)
            try:
                self._socket = socket.socket(fileno=self.fd)
            finally:
                socket.setdefaulttimeout(default)
        elif kind is not SinkKind.FILE:
            self.limit = PIPE_LIMIT
        blocking = not fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_NONBLOCK
        self.exclusive = kind is SinkKind.TERMINAL
        if self.exclusive:
            self.renew_lock()
            try:
                self._unlock(_GATE, 0)
            except OSError:  # this terminal has no locks: torn lines are better than none
                self.exclusive = False
        #: Whether a loop may watch it. Not a blocking descriptor: libuv's `uv_poll_init` sets O_NONBLOCK on all that it
        #: watches. Not a terminal: the end of another process's half line is no event.
        self.watchable = kind in (SinkKind.PIPE, SinkKind.SOCKET) and not blocking
        self._ask_first: select.poll | None = None
        if blocking and kind in (SinkKind.PIPE, SinkKind.TERMINAL):
            # "Writable" means room for PIPE_BUF bytes, which another process may take first. So this is less sure than
            # a description of our own.
            self._ask_first = select.poll()
            self._ask_first.register(self.fd, select.POLLOUT)

    def send(self, piece: bytes, *, begun: bool, patient: bool) -> int:
        """Write once; return the number of bytes written. `begun`: the beginning of this line was written before.

        `patient`: wait for another process that is writing at this moment. Raises BlockingIOError if there is no room
        or another process has half a line out, and other OSErrors.
        """
        if self._socket is not None:
            return self._socket.send(piece, socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0))
        if self._ask_first is not None and not self._ask_first.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if self.exclusive:
            return self._send_alone(piece, begun=begun, patient=patient)
        return self._write(piece)

    def _write(self, piece: bytes) -> int:
        if self.kind is not SinkKind.TERMINAL:
            return os.write(self.fd, piece)
        with terminal.background_output():
            return os.write(self.fd, piece)

    def _send_alone(self, piece: bytes, *, begun: bool, patient: bool) -> int:
        half = self.half
        lead = b""
        if not begun:
            self._begin(patient=patient)
            if half is not None and half.get():
                lead = b"\n"  # the process with half a line out was killed
        if half is not None:
            half.put(half=True)  # before the write, in which we may be killed: an empty line is better than a torn line
        out = 0
        try:
            out = self._write(lead + piece)
        finally:
            sent = max(0, out - len(lead))
            whole = sent == len(piece) or (sent == 0 and not begun)
            if half is not None:
                half.put(half=not whole or out < len(lead))
            if whole:
                self._unlock(_GATE, 0)
                self._close_spare()
            else:
                self._unlock(_GATE, 1)
        return sent

    def _begin(self, *, patient: bool) -> None:
        """Take both locks; BlockingIOError if another process has them."""
        until = time.monotonic() + GATE_PATIENCE if patient else 0.0
        while not self._lock(_GATE):
            if time.monotonic() >= until:
                raise BlockingIOError(errno.EAGAIN, "another process is writing")
            select.select([], [], [], _GATE_PAUSE)
        if not self._lock(_LINE):
            self._unlock(_GATE, 1)
            raise BlockingIOError(errno.EAGAIN, "another process has half a line out")

    def renew_lock(self) -> None:
        """Open a description for the locks that this process and sink share with no other; call it after a fork.

        A process's own locks (F_SETLK) end as soon as it closes any descriptor of the terminal, and processes pass some
        to each other at every SIGUSR1. They are used only where no description can be opened: without /proc, or on
        another user's terminal.
        """
        if not self.exclusive:
            return
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        if _DESCRIPTION_LOCK is not None:
            with contextlib.suppress(OSError):
                self._lock_fd = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def _unlock(self, byte: int, length: int) -> None:
        """Release `length` bytes from `byte` on; all of them for 0."""
        self._set_lock(fcntl.LOCK_UN, byte, length)

    def _set_lock(self, kind: int, byte: int, length: int) -> None:
        if self._lock_fd < 0 or _DESCRIPTION_LOCK is None:
            fcntl.lockf(self.fd, kind, length, byte)
            return
        type_ = fcntl.F_UNLCK if kind == fcntl.LOCK_UN else fcntl.F_WRLCK
        # struct flock of 64-bit Linux: type, whence, start, length, pid.
        fcntl.fcntl(self._lock_fd, _DESCRIPTION_LOCK, struct.pack("hhqqi4x", type_, os.SEEK_SET, byte, length, 0))

    def _lock(self, byte: int) -> bool:
        try:
            self._set_lock(fcntl.LOCK_EX | fcntl.LOCK_NB, byte, 1)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def leads_to(self, fd: int) -> bool:
        """Whether `fd` is the same pipe, terminal or socket, so that nothing has to be replaced."""
        return self.kind is not SinkKind.FILE and os.path.samestat(os.fstat(fd), os.fstat(self.fd))

    def drop(self, fd: int, *, begun: bool) -> None:
        """Close `fd`, another descriptor of the same terminal; in the middle of a line, after its end.

        Because a close ends the process's record locks (fcntl(2)).
        """
        self._spare.append(fd)
        if not (begun and self.exclusive):
            self._close_spare()

    def _close_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    def replace(self, fd: int, kind: SinkKind) -> None:
        """Go on with the file of `fd`, under the same number; `fd` itself is closed."""
        self._release()
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self.kind = kind
        self._adopt()

    def wait(self, seconds: float) -> None:
        """Wait until there may be room again; for a process that ends."""
        if self.exclusive:
            select.select([], [], [], min(seconds, 0.01))
        else:
            poller = select.poll()
            poller.register(self.fd, select.POLLOUT)
            poller.poll(seconds * 1000)

    def close(self) -> None:
        """Close the descriptor. A later `send` fails with EBADF: the number may be another file's by then."""
        self._release()
        fd, self.fd = self.fd, -1
        self._ask_first = None
        self.exclusive = False
        self._close_spare()
        os.close(fd)

    def _release(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
