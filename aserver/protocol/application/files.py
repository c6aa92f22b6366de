"""Sending a file's content as a body (`http.response.pathsend`).

Runs in the worker's loop; everything that may touch the disk runs in the loop's executor, and a slow client holds
no thread. It must never send more or less than the size the head announced.

sendfile(2) is not used: uvloop has none and owns the socket; asyncio's waits for the client by itself, out of reach of
`write_timeout` and of the drain, and would leave a slow reader a connection for ever.
"""

import asyncio
import os
import stat

from aserver.errors import ApplicationError

#: Bytes in a read: so many that the hop to the executor (about 60 us) is small beside it.
CHUNK = 256 * 1024


async def open_regular(loop: asyncio.AbstractEventLoop, path: object) -> tuple[int, int]:
    """Open a regular file; return descriptor and size.

    Raises ApplicationError for a path that is no absolute str or names no regular file, OSError from open(2).
    """
    if not isinstance(path, str) or not os.path.isabs(path):
        raise ApplicationError(f"http.response.pathsend: path {path!r} is no absolute path")
    return await loop.run_in_executor(None, _open_regular, path)


def _open_regular(path: str) -> tuple[int, int]:
    # Non-blocking, because open(2) of a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ApplicationError(f"http.response.pathsend: {path!r} is no regular file")
    return descriptor, status.st_size


async def read_chunk(loop: asyncio.AbstractEventLoop, descriptor: int, offset: int, size: int, path: str) -> bytes:
    """Read the next bytes of a file of `size`. Raises ApplicationError if it has got shorter."""
    chunk = await loop.run_in_executor(None, os.pread, descriptor, min(CHUNK, size - offset), offset)
    if not chunk:
        raise ApplicationError(f"http.response.pathsend: {path!r} ended at {offset} bytes, {size} were announced")
    return chunk
