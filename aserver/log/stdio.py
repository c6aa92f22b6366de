"""The standard streams of a process that runs user code: safe in signal handlers, or led into the error log.

Called by the zygote before it loads the app; never in an embedding program, whose streams are not ours. It must be
called early: a logging handler of the app keeps the stream that it found.
"""

import codecs
import contextlib
import io
import logging
import os
import sys
from _thread import get_ident
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from aserver.log.opening import kind_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_decoder = partial(codecs.getincrementaldecoder("utf-8"), errors="backslashreplace")
_output = logging.getLogger("aserver.output")


def _raw_text(fd: int, like: TextIO | None) -> io.TextIOWrapper:
    """A text stream whose every write is one write(2): there is no buffer that a signal handler could re-enter.

    The unbuffered shape is the interpreter's own under `python -u` (Python/pylifecycle.c, create_stdio).
    """
    raw = io.FileIO(fd, "w", closefd=False)
    encoding = getattr(like, "encoding", None) or "utf-8"
    errors = getattr(like, "errors", None) or "backslashreplace"
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, write_through=True)


def replace_stdio() -> None:
    """Make sys.stdout and sys.stderr write-through and unbuffered (trap 71).

    So `print` and `logging` in a user's signal handler cannot raise "reentrant call inside BufferedWriter".
    A stream that the app has put there itself, or that is closed, stays.
    """
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue
        stream.flush()
        setattr(sys, name, _raw_text(fd, stream))


class OutputBytes(io.RawIOBase):
    """The `buffer` of an `OutputStream`: bytes are records of its lines, as text would be."""

    def __init__(self, stream: "OutputStream", fd: int) -> None:
        self._stream = stream
        self._fd = fd
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}  # per thread: half a character may wait

    def fileno(self) -> int:
        """For subprocesses and C code."""
        return self._fd

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: "Buffer") -> int:
        """Log each finished line at once."""
        whole = bytes(data)
        decoder = self._decoders.get(get_ident())
        if decoder is None:
            decoder = self._decoders[get_ident()] = _decoder()
        self._stream.write(decoder.decode(whole))
        return len(whole)


class OutputStream(io.TextIOBase):
    """A text stream whose lines become records of the logger `aserver.output`, each with the process that printed it.

    Lines are put together per thread, so that two threads' pieces do not mix.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd
        self._partial: dict[int, str] = {}
        self.buffer: Any = OutputBytes(self, fd)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of `buffer`'s bytes; typeshed has a plain attribute here."""
        return "utf-8"

    def fileno(self) -> int:
        """For subprocesses and C code."""
        return self._fd

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never: what is written here ends in a log."""
        return False

    def write(self, text: str) -> int:
        """Log each finished line at once."""
        me = get_ident()
        *lines, rest = (self._partial.pop(me, "") + text).split("\n")
        if rest:
            self._partial[me] = rest
        for line in lines:
            _output.info("%s: %s", self.name, line)
        return len(text)

    def flush(self) -> None:
        """Lines leave when they end; half a line waits for its end, or for `close`."""

    def close(self) -> None:
        """Log what never got its line end."""
        for me in list(self._partial):
            _output.info("%s: %s", self.name, self._partial.pop(me))


def finish_streams() -> None:
    """Write out sys.stdout and sys.stderr, even half a line: before a fork, which would copy it, and at the end.

    Errors are passed over: a stream may be an object of the application's, or a pipe that is not read any more.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            if isinstance(stream, OutputStream):
                stream.close()
            else:
                stream.flush()


def capture_output(error_fd: int) -> None:
    """Lead the output into the error log: Python's line by line, with process and time; C's and subprocesses' raw.

    No pipe back to ourselves, which would also attribute C-level writes: once it is full, `print` would wait for the
    very loop that is to empty it. Descriptors 1 and 2 are pointed at the error log, or at the inherited standard error
    if that *is* the error log, because ours is non-blocking and a subprocess would not expect that.
    """
    redirect(error_fd)
    _output.setLevel(logging.INFO)  # whatever `loglevel` says: who captures output wants to see it
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None:
            stream.flush()
        setattr(sys, name, OutputStream(name, fd))


def redirect(error_fd: int) -> None:
    """Point descriptors 1 and 2 at the error log; again after it was reopened."""
    if same_file(error_fd, 2):
        os.dup2(2, 1)
        return
    os.dup2(error_fd, 1)
    os.dup2(error_fd, 2)


def same_file(one: int, other: int) -> bool:
    """Whether both descriptors lead to the same file, pipe or terminal; False if one is closed."""
    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return kind_of(one) is kind_of(other) and os.path.samestat(first, second)
