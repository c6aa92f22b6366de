"""The descriptor under a sink: how whole lines get into a file, a pipe, a terminal or a socket.

Every process has its own; only `sink.Sink` calls it. It must never wait for a reader, and
never set O_NONBLOCK on an inherited description: descriptors 0-2 share theirs with the shell that started us.

To a regular file an O_APPEND write of any length is not mixed with others. To a pipe, write(2) is all-or-nothing up to
PIPE_BUF (pipe(7)), so longer lines are cut there. A terminal that is behind takes half a line: who has begun one keeps
the others off until it is out, by a lock on bytes of it (fcntl(2)), which dies with its process.
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

#: POSIX promises 512, Linux gives 4096. Where it is less (macOS) a line of 512 would say too little, and
#: mixing is the smaller harm.
PIPE_LIMIT = max(select.PIPE_BUF, 4096)
#: A UNIX stream socket takes up to 32 KiB as one piece (net/unix/af_unix.c), half of that is safe anywhere.
SOCKET_LIMIT = 16 << 10

#: Locks on a terminal, as bytes of a file that has none: for the moment of a write, and for a line half out.
_GATE, _LINE = 0, 1
#: Seconds that another process may be in its `_GATE` (some system calls, unless it is preempted or killed there) before
#: ours counts as blocked. It was tried to count at once: a worker that was killed within the pause took its last lines
#: along, in 1 of 6 storms on a busy machine, though the terminal had room. It is paid only where the sink was open.
GATE_PATIENCE = 0.1
_GATE_PAUSE = 0.0002
#: Locks that belong to an open file description; only Linux has them.
_DESCRIPTION_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None) if struct.calcsize("P") == 8 else None


class Descriptor:
    """Owns `fd`; `send` writes once. `limit` is how many bytes are sure to stay together, None for any number."""

    def __init__(self, fd: int, kind: SinkKind) -> None:
        self.fd = fd
        self.kind = kind
        self._spare: list[int] = []
        self._lock_fd = -1
        #: Of a terminal, once `Logging.share_half_lines` has said where the processes tell each other.
        self.half: HalfLine | None = None
        self._adopt()

    def _adopt(self) -> None:
        kind = self.kind
        self._socket: socket.socket | None = None
        self.limit: int | None = None
        if kind is SinkKind.SOCKET:
            self.limit = SOCKET_LIMIT
            # With a default timeout, which user code may have set, a new socket object would make the description
            # non-blocking for everybody.
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
            except OSError:  # there are no such locks here: torn is better than nothing
                self.exclusive = False
        #: Whether a loop may watch it: libuv's `uv_poll_init` sets O_NONBLOCK on whatever it watches, and the end of
        #: another's half line cannot be watched for.
        self.watchable = kind in (SinkKind.PIPE, SinkKind.SOCKET) and not blocking
        self._ask_first: select.poll | None = None
        if blocking and kind in (SinkKind.PIPE, SinkKind.TERMINAL):
            # Writable means room for PIPE_BUF. Another writer may take it first: only a private description is sure.
            self._ask_first = select.poll()
            self._ask_first.register(self.fd, select.POLLOUT)

    def send(self, piece: bytes, *, begun: bool, patient: bool) -> int:
        """Write once, and return how many bytes are out. `begun`: `piece` goes on in the middle of a line of ours.

        `patient`: wait for another process that is writing this very moment. Raises OSError; of these, BlockingIOError
        says that there is no room, or that another process has half a line out.
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
                lead = b"\n"  # the process that had half a line out was killed
        if half is not None:
            half.put(half=True)  # before it is so, for we may be killed at any moment; an empty line is the lesser evil
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
        """Have a description to lock that is of this process and sink alone; call it after a fork.

        Locks of a process would end as soon as it closed any descriptor of the terminal, and processes pass some to
        each other at every SIGUSR1. They serve where there is no /proc, or the terminal is another user's.
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
        """`length` 0: to the end."""
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
        """Whether `fd` is the same pipe, terminal or socket, so that there is nothing to change over to."""
        return self.kind is not SinkKind.FILE and os.path.samestat(os.fstat(fd), os.fstat(self.fd))

    def drop(self, fd: int, *, begun: bool) -> None:
        """Close another descriptor of the same, which ends record locks (fcntl(2)): not in the middle of a line."""
        self._spare.append(fd)
        if not (begun and self.exclusive):
            self._close_spare()

    def _close_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    def replace(self, fd: int, kind: SinkKind) -> None:
        """Go on writing to `fd`, which is closed, under the same number."""
        self._let_go()
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self.kind = kind
        self._adopt()

    def wait(self, seconds: float) -> None:
        """Wait until there may be room again; for a process that leaves."""
        if self.exclusive:
            select.select([], [], [], min(seconds, 0.01))
        else:
            poller = select.poll()
            poller.register(self.fd, select.POLLOUT)
            poller.poll(seconds * 1000)

    def close(self) -> None:
        """Close the descriptor; a late `send` fails with EBADF, it does not reach whoever has the number next."""
        self._let_go()
        fd, self.fd = self.fd, -1
        self._ask_first = None
        self.exclusive = False
        self._close_spare()
        os.close(fd)

    def _let_go(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
