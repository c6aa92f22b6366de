"""The streams that a WSGI application finds in its environ: the body, the log of errors, the wrapper of files.

Runs in the threads of the application. They must never touch the loop but by the functions that they are given.
"""

import io
import logging
from collections.abc import Callable, Iterable
from typing import IO, Any

log = logging.getLogger("aserver.error")

#: Bytes of a file that are read at once, at the least; applications ask for 4096 or 8192, by PEP 3333's example.
_BLOCK = 65536


class InputStream(io.RawIOBase):
    """`wsgi.input` of a body that is still to come, to be read through `io.BufferedReader`.

    `more` waits for the next piece; it returns None at the end, and raises ConnectionResetError if the client leaves.
    """

    def __init__(self, piece: bytes, more: Callable[[], bytes | None]) -> None:
        super().__init__()
        self._piece: memoryview = memoryview(piece)
        self._more: Callable[[], bytes | None] | None = more

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill as much of `buffer` as a piece has; return 0 at the end."""
        while not self._piece:
            piece = self._more() if self._more is not None else None
            if piece is None:
                self._more = None
                return 0
            self._piece = memoryview(piece)
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size


class ErrorStream:
    """`wsgi.errors` of a request: each line that is written is a record of the error log.

    It has the methods of a text stream that is written to, but does not derive from `io.TextIOBase`: making and ending
    an object of such a class costs as much as the whole environ.
    """

    __slots__ = ("_request_id", "_text")

    closed = False
    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, request_id: str | None = None) -> None:
        self._request_id = request_id
        self._text = ""

    def writable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Never."""
        return False

    def isatty(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Log the text that is kept. Applications may not close the stream (PEP 3333), so it can be written to on."""
        self.flush()

    def writelines(self, lines: Iterable[str]) -> None:
        """Log them."""
        for line in lines:
            self.write(line)

    def write(self, text: str) -> int:
        """Log whole lines, as a logging handler or print() writes them; keep the rest for later."""
        self._text += text
        if text.endswith("\n"):
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Log the text that is kept."""
        text, self._text = self._text.rstrip("\n"), ""
        if text:
            log.error("%s", text, extra={"request_id": self._request_id})


class FileWrapper:
    """`wsgi.file_wrapper`: a file as an iterable of blocks, from where it stands; `close` is the file's.

    `left`, if set, is how many bytes are read at most: a file may be longer than the response's Content-Length.
    """

    def __init__(self, filelike: IO[bytes], blksize: int = _BLOCK) -> None:
        self.filelike = filelike
        self.blksize = max(blksize, _BLOCK)
        self.left: int | None = None
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> "FileWrapper":
        """Return itself."""
        return self

    def __next__(self) -> bytes:
        """Return the next block."""
        block = self.filelike.read(self.blksize if self.left is None else min(self.left, self.blksize))
        if not block:
            raise StopIteration
        if self.left is not None:
            self.left -= len(block)
        return block
