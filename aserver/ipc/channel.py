"""A stream of typed messages with descriptors between two of aserver's processes.

Runs in all of them. A channel owns its socket, and the descriptors that it has received, until `receive` returns them.
It never blocks (only `flush_blocking` does, before a process ends) and never interprets a message.

A socket takes some 200 KB, and a message may be longer. The owner of a channel decides how the rest is written: a
process with a loop calls `flush_by` once, the zygote polls for POLLOUT while the channel is `pending`.

It is a stream socket with a length before each message, not SOCK_SEQPACKET: macOS has no seqpacket for AF_UNIX, and a
traceback may be longer than a packet. Descriptors travel with the first byte of their message, so they always arrive
before its last byte.

The master's peers run the application's code, which may be hostile. So arriving bytes are parsed as input: `receive`
reads a bounded amount, never beyond the current message, and raises ChannelError for everything but a message that may
come here with the descriptors that belong to it. After that nothing is read, and no descriptor stays open.
"""

import array
import contextlib
import os
import select
import socket
import struct
import sys
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar, get_args

import msgspec

from aserver.errors import ChannelError
from aserver.ipc.messages import FDS, Message

_HEADER = struct.Struct("!IH")  # length of the body, number of descriptors
_MAX_BODY = 1 << 22  # bytes; no message of ours is longer, because texts in it are cut
#: The most messages and bytes of a call of `receive`; the rest keeps the socket readable.
TURN_MESSAGES, TURN_BYTES = 64, 256 << 10
_PIECE = 64 << 10
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # socket.recv_fds ignores it (docs/traps.md, 13)
_NOSIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
#: Passed to every call, because O_NONBLOCK belongs to the open file: a zygote with a duplicate could clear it.
_DONTWAIT = socket.MSG_DONTWAIT

M = TypeVar("M", bound=Message)
_encode = msgspec.msgpack.Encoder().encode


class Channel(Generic[M]):
    """An end of a channel. `expects` is the union of the messages that may arrive here, from `ipc.messages`."""

    def __init__(self, sock: socket.socket, expects: Any) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decode = msgspec.msgpack.Decoder(expects).decode
        most_fds = max(FDS.get(kind, (0, 0))[1] for kind in get_args(expects))
        # Not CMSG_SPACE: it rounds up, and the kernel would fill the padding with another descriptor.
        self._fds_room = socket.CMSG_LEN(most_fds * 4) if most_fds else 0
        self._incoming = bytearray()
        self._incoming_fds: list[int] = []
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        self._loop: AbstractEventLoop | None = None
        self._writing = False  # the loop waits until the socket takes more
        self.eof = False

    def fileno(self) -> int:
        """For select, poll and add_reader; -1 once closed."""
        return self._sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether messages wait to be written. Without `flush_by`: call `flush` when the socket is writable."""
        return bool(self._outgoing)

    def cut_off(self) -> None:
        """Read no more from a broken peer, whose writes then fail (EPIPE). Messages can still be sent to it."""
        self.eof = True
        with contextlib.suppress(OSError):  # the other end has gone
            self._sock.shutdown(socket.SHUT_RD)
        _close_all(self._incoming_fds)
        self._incoming_fds, self._incoming = [], bytearray()

    @property
    def quiet(self) -> bool:
        """Whether no message is half read or half written: then the socket is the channel's whole state."""
        return not (self._outgoing or self._incoming or self._incoming_fds)

    @property
    def half_read(self) -> int:
        """Bytes of the message that has not arrived whole."""
        return len(self._incoming)

    def send(self, message: Message, fds: Iterable[int] = ()) -> None:
        """Queue `message` and write as much as the socket takes. The caller keeps its descriptors.

        A peer that is gone is not an error here: `receive` will say `eof`. Raises ChannelError for descriptors that do
        not belong to the message and for a message that the peer would refuse as too long, OSError where no descriptor
        is left.
        """
        passed = list(fds)
        least, most = FDS.get(type(message), (0, 0))
        if not least <= len(passed) <= most:
            raise ChannelError(
                f"{type(message).__name__} travels with {least} to {most} descriptors, not {len(passed)}"
            )
        body = _encode(message)
        if len(body) > _MAX_BODY:
            raise ChannelError(f"{type(message).__name__} has {len(body)} bytes, and a message at most {_MAX_BODY}")
        frame = memoryview(_HEADER.pack(len(body), len(passed)) + body)
        # A message may wait longer than the caller keeps its descriptors, so the queue has its own.
        self._outgoing.append((frame, _copies(passed)))
        self.flush()

    def flush_by(self, loop: AbstractEventLoop | None) -> None:
        """Let `loop` write the rest that the socket does not take at once; None before the loop is closed."""
        self._await_room(wanted=False)
        self._loop = loop
        self._await_room(wanted=self.pending)

    def _await_room(self, *, wanted: bool) -> None:
        if self._loop is None or wanted is self._writing:
            return
        self._writing = wanted
        if wanted:
            self._loop.add_writer(self._sock.fileno(), self.flush)
        else:
            self._loop.remove_writer(self._sock.fileno())

    def flush(self) -> None:
        """Write as much as the socket takes now."""
        self._write()
        self._await_room(wanted=self.pending)

    def _write(self) -> None:
        while self._outgoing:
            frame, fds = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([frame], rights, _NOSIGNAL | _DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # EPIPE, ECONNRESET: the peer is gone
                self._drop_outgoing()
                return
            _close_all(fds)
            if sent == len(frame):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (frame[sent:], [])

    def flush_blocking(self, timeout: float) -> None:
        """Wait until everything is written, at most `timeout` seconds for each part; for a process that ends."""
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        while self._outgoing and poll.poll(timeout * 1000):
            self.flush()

    def receive(self) -> list[tuple[M, list[int]]]:
        """Complete messages that have arrived, each with its descriptors, which now belong to the caller.

        A call takes TURN_MESSAGES and TURN_BYTES at most: call it again while the socket is readable. Sets `eof` when
        the peer is gone; messages before that are still returned.

        Raises ChannelError for bytes that are no message that may come here, for a message with more or fewer
        descriptors than belong to it, and for a cut descriptor list (MSG_CTRUNC). Then `eof` is set too: nothing more
        is read from such a peer, and the messages of the same call are dropped.
        """
        messages: list[tuple[M, list[int]]] = []
        room = TURN_BYTES
        try:
            while room > 0 and len(messages) < TURN_MESSAGES and (got := self._read(room)):
                room -= got
                if self._missing() == 0:
                    messages.append(self._take())
        except ChannelError:
            for _, fds in messages:
                _close_all(fds)
            self.cut_off()
            raise
        return messages

    def _missing(self) -> int:
        """The number of bytes that the current message lacks; that its header lacks, as long as that is incomplete."""
        if len(self._incoming) < _HEADER.size:
            return _HEADER.size - len(self._incoming)
        length, count = _HEADER.unpack_from(self._incoming)
        if length > _MAX_BODY:
            raise ChannelError(f"a message of {length} bytes arrived, the most is {_MAX_BODY}")
        if count != len(self._incoming_fds):
            raise ChannelError(f"a message came with {len(self._incoming_fds)} of its {count} descriptors")
        return int(_HEADER.size + length - len(self._incoming))

    def _take(self) -> tuple[M, list[int]]:
        try:
            message = self._decode(memoryview(self._incoming)[_HEADER.size :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # all that it can raise
            raise ChannelError(f"a message that this aserver does not know: {error}") from None
        least, most = FDS.get(type(message), (0, 0))
        if not least <= len(self._incoming_fds) <= most:
            raise ChannelError(f"{type(message).__name__} came with {len(self._incoming_fds)} descriptors")
        fds, self._incoming_fds = self._incoming_fds, []
        self._incoming = bytearray()
        return message, fds

    def _read(self, most: int) -> int:
        """Read up to `most` bytes of the current message, and none of the next; return how many came."""
        if self.eof:
            return 0
        size = min(self._missing(), most, _PIECE)
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(size, self._fds_room, _CLOEXEC | _DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.eof = True
            return 0
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                if sys.platform != "linux":
                    for fd in fds:
                        os.set_inheritable(fd, False)
                self._incoming_fds.extend(fds)
        self._incoming += data
        if flags & socket.MSG_CTRUNC:
            raise ChannelError("more descriptors came than belong to any message, or this process may open no more")
        self.eof = not data
        return len(data)

    def _drop_outgoing(self) -> None:
        for _, fds in self._outgoing:
            _close_all(fds)
        self._outgoing.clear()

    def close(self) -> None:
        """Close the socket, and every descriptor that was not returned yet."""
        self.flush_by(None)
        self._drop_outgoing()
        _close_all(self._incoming_fds)
        self._incoming_fds.clear()
        self._sock.close()


def _copies(fds: Iterable[int]) -> list[int]:
    """Duplicate each of `fds`. Raises OSError; then no duplicate stays open."""
    made: list[int] = []
    try:
        made.extend(os.dup(fd) for fd in fds)  # extend() keeps those before a failure
    except OSError:
        _close_all(made)
        raise
    return made


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
