"""A file's content as the body of a response (`http.response.pathsend`): by sendfile(2), or read and written.

Runs in the worker's loop. Calls that may wait for the disk are made in the loop's executor; a slow client holds no
thread. It must never send more or less bytes than the head announced. It must never close a descriptor while a thread
uses it: the next connection would get the same number, and its client the file.

sendfile(2) writes to a duplicate of the socket's descriptor, since uvloop has no sendfile and keeps its descriptor for
itself. asyncio's `loop.sendfile` waits for the client by itself, without `write_timeout`. Here a full socket pauses the
connection as a full buffer of its transport does.
"""

import asyncio
import os
import stat
from collections.abc import Callable

from aserver.errors import ApplicationError
from aserver.protocol.transport.connection import Connection

#: Bytes of a read. It takes so long that the 60 us of the way to the executor and back count little.
CHUNK = 256 * 1024
#: The most bytes of a sendfile(2): more than a socket's buffer takes. The call does not wait for room.
PASSED = 8 * 1024 * 1024


class SentFile:
    """A regular file that is sent to a client. Its user must call `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, descriptor: int, size: int) -> None:
        self.size = size
        self._loop = loop
        self._path = path
        self._descriptor = descriptor
        self._socket: int | None = None  # a duplicate of the transport's descriptor
        self._passes = hasattr(os, "sendfile") and size > CHUNK  # a smaller file is a single read, which is less work
        self._full = False  # the socket's buffer has no room
        self._call: asyncio.Future[object] | None = None

    async def read(self, offset: int) -> bytes:
        """Return the next bytes, CHUNK at most. Raises ApplicationError if the file has become shorter."""
        chunk = await self._in_thread(os.pread, self._descriptor, min(CHUNK, self.size - offset), offset)
        assert isinstance(chunk, bytes)
        if not chunk:
            fault = f"{self._path!r} ended at {offset} bytes, {self.size} were announced"
            raise ApplicationError(f"http.response.pathsend: {fault}")
        return chunk

    async def pass_on(self, link: Connection, offset: int) -> int:
        """Let the kernel send the next bytes, and return their number. After 0 the caller must `read` and write them.

        It is 0 while the transport still has bytes to write, on file systems without sendfile(2), if the file has
        become shorter, and if the client has gone: the transport's next write then finds that, too.
        """
        link.writer.flush()
        if not self._passes or link.transport.get_write_buffer_size():
            return 0
        try:
            if self._socket is None:
                self._socket = os.dup(link.transport.get_extra_info("socket").fileno())
            while link.open:
                if self._full:
                    await self._until_writable(link, self._socket)
                    self._full = False
                    continue
                size = min(PASSED, self.size - offset)
                try:
                    sent = await self._in_thread(os.sendfile, self._socket, self._descriptor, offset, size)
                except BlockingIOError:
                    self._full = True
                    continue
                assert isinstance(sent, int)
                self._full = sent < size  # assumed; to find out would take another call in the executor
                return sent
        except (OSError, AttributeError):  # AttributeError: a transport without a socket
            self._passes = False
        return 0

    async def _until_writable(self, link: Connection, sock: int) -> None:
        """Wait until the socket has room, with the deadline of a transport whose buffer is full."""
        link.pause_writing()
        self._loop.add_writer(sock, link.resume_writing)
        try:
            await link.until_writable()
        finally:
            self._loop.remove_writer(sock)
            if link.open and link.handler.write_paused:  # this task was cancelled
                link.resume_writing()

    async def _in_thread(self, function: Callable[..., object], *arguments: int) -> object:
        """Call a function in the executor. The call goes on if this task is cancelled; `close` waits for it."""
        self._call = self._loop.run_in_executor(None, function, *arguments)
        return await asyncio.shield(self._call)

    def close(self) -> None:
        """Close the descriptors as soon as no thread uses them."""
        if self._call is not None and not self._call.done():
            self._call.add_done_callback(lambda _: self._close())
        else:
            self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        if self._socket is not None:
            os.close(self._socket)


async def open_regular(loop: asyncio.AbstractEventLoop, path: object) -> SentFile:
    """Open the regular file at `path`.

    Raises ApplicationError if `path` is no absolute path, or the file is not regular. Raises OSError from open(2).
    """
    if not isinstance(path, str) or not os.path.isabs(path):
        raise ApplicationError(f"http.response.pathsend: path {path!r} is no absolute path")
    return SentFile(loop, path, *await loop.run_in_executor(None, _open_regular, path))


def _open_regular(path: str) -> tuple[int, int]:
    # O_NONBLOCK, because open(2) of a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ApplicationError(f"http.response.pathsend: {path!r} is no regular file")
    return descriptor, status.st_size
