"""Sending a file's content as a body (`http.response.pathsend`): from the kernel to the socket, or read and written.

Runs in the worker's loop; everything that may touch the disk runs in the loop's executor, and a slow client holds
no thread. It must never send more or less than the size the head announced, nor let a descriptor's number go while a
thread uses it: a connection that gets the number would get the file.

sendfile(2) goes to a duplicate of the transport's descriptor: uvloop has no sendfile and owns its descriptor, and
asyncio's waits for the client by itself, out of reach of `write_timeout`. Here a full socket is a full transport.
"""

import asyncio
import os
import stat
from collections.abc import Callable

from aserver.errors import ApplicationError
from aserver.protocol.transport.connection import Connection

#: Bytes in a read: so many that the hop to the executor (about 60 us) is small beside it.
CHUNK = 256 * 1024
#: Bytes in one sendfile(2), at most: more than a socket's buffer takes, as it is not blocking.
PASSED = 8 * 1024 * 1024


class SentFile:
    """A regular file on its way to a client; to be closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, descriptor: int, size: int) -> None:
        self.size = size
        self._loop = loop
        self._path = path
        self._descriptor = descriptor
        self._socket: int | None = None  # a duplicate of the transport's
        self._passes = hasattr(os, "sendfile") and size > CHUNK  # else one read is less work
        self._full = False  # the socket's buffer
        self._call: asyncio.Future[object] | None = None

    async def read(self, offset: int) -> bytes:
        """Read the next bytes. Raises ApplicationError if the file has got shorter."""
        chunk = await self._in_thread(os.pread, self._descriptor, min(CHUNK, self.size - offset), offset)
        assert isinstance(chunk, bytes)
        if not chunk:
            fault = f"{self._path!r} ended at {offset} bytes, {self.size} were announced"
            raise ApplicationError(f"http.response.pathsend: {fault}")
        return chunk

    async def pass_on(self, link: Connection, offset: int) -> int:
        """Have the kernel send the next bytes, and return how many; 0 means that they are to be read and written.

        So it is while the transport has bytes of its own to write, for file systems without sendfile(2), where the file
        has got shorter, and when the client has gone: what the transport writes next meets the same error.
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
                self._full = sent < size  # most likely; a look by another call would be another hop
                return sent
        except (OSError, AttributeError):  # the latter: a transport without a socket
            self._passes = False
        return 0

    async def _until_writable(self, link: Connection, sock: int) -> None:
        """Wait as for a transport that is full, with its deadline."""
        link.pause_writing()
        self._loop.add_writer(sock, link.resume_writing)
        try:
            await link.until_writable()
        finally:
            self._loop.remove_writer(sock)
            if link.open and link.handler.write_paused:  # cancelled
                link.resume_writing()

    async def _in_thread(self, function: Callable[..., object], *arguments: int) -> object:
        """Call a function that may wait for the disk. It outlives a cancelled task, so `close` waits for it."""
        self._call = self._loop.run_in_executor(None, function, *arguments)
        return await asyncio.shield(self._call)

    def close(self) -> None:
        """Close the descriptors, as soon as no thread uses them."""
        if self._call is not None and not self._call.done():
            self._call.add_done_callback(lambda _: self._close())
        else:
            self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        if self._socket is not None:
            os.close(self._socket)


async def open_regular(loop: asyncio.AbstractEventLoop, path: object) -> SentFile:
    """Open a regular file.

    Raises ApplicationError for a path that is no absolute str or names no regular file, OSError from open(2).
    """
    if not isinstance(path, str) or not os.path.isabs(path):
        raise ApplicationError(f"http.response.pathsend: path {path!r} is no absolute path")
    return SentFile(loop, path, *await loop.run_in_executor(None, _open_regular, path))


def _open_regular(path: str) -> tuple[int, int]:
    # Non-blocking, because open(2) of a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ApplicationError(f"http.response.pathsend: {path!r} is no regular file")
    return descriptor, status.st_size
