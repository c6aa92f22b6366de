"""The standard streams of a process that runs user code: safe in signal handlers, or led into the error log.

The zygote calls it before it loads the app, because a logging handler of the app keeps the stream that it finds. An
embedding program keeps its own streams.
"""

import codecs
import contextlib
import io
import logging
import os
import sys
from _thread import get_ident
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from aserver.log.opening import kind_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_decoder = partial(codecs.getincrementaldecoder("utf-8"), errors="backslashreplace")
_output = logging.getLogger("aserver.output")


def _raw_text(fd: int, like: TextIO | None) -> io.TextIOWrapper:
    """A text stream that makes each write a write(2): it has no buffer that a signal handler could re-enter.

    `python -u` builds its streams in the same way (Python/pylifecycle.c, create_stdio).
    """
    raw = io.FileIO(fd, "w", closefd=False)
    encoding = getattr(like, "encoding", None) or "utf-8"
    errors = getattr(like, "errors", None) or "backslashreplace"
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, write_through=True)


def replace_stdio() -> None:
    """Make sys.stdout and sys.stderr write-through and unbuffered (docs/traps.md, 71).

    So `print` and `logging` in a user's signal handler cannot raise "reentrant call inside BufferedWriter".
    A stream that is closed, or that the app has put there itself, stays.
    """
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue
        stream.flush()
        setattr(sys, name, _raw_text(fd, stream))


class OutputBytes(io.RawIOBase):
    """The `buffer` of an `OutputStream`: bytes become records, line by line, as text does."""

    def __init__(self, stream: "OutputStream", fd: int) -> None:
        self._stream = stream
        self._fd = fd
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}  # by thread; each may hold half a character

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

    Each thread has its own half line, so that the pieces of two threads do not mix.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd
        self._partial: dict[int, str] = {}
        self.buffer: Any = OutputBytes(self, fd)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of `buffer`'s bytes; typeshed has a plain attribute here."""
        return "utf-8"

    def fileno(self) -> int:
        """For subprocesses and C code."""
        return self._fd

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never: the text ends in a log."""
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
        """Do nothing: a line is logged at its end, and half a line waits for its end, or for `close`."""

    def close(self) -> None:
        """Log the half lines, which get no more text."""
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


def capture_output(ends: Sequence[int]) -> None:
    """Lead the output into the error log, line by line: Python's by records of this process, all other by pipes.

    `ends` are the writing ends for standard output and error, and are taken over (`output.reader` has the others).
    Python's does not go by the pipes, because records of one process stand in their order in the log.
    """
    _output.setLevel(logging.INFO)  # also under a stricter `loglevel`: captured output is wanted
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None:
            stream.flush()
        setattr(sys, name, OutputStream(name, fd))
    for fd, end in zip((1, 2), ends, strict=True):
        os.dup2(end, fd)
        os.close(end)


def exchange_output(former: Sequence[os.stat_result], ends: Sequence[int]) -> None:
    """In a forked process: go on in `ends`, which are taken over, where the output still goes to the `former` pipes."""
    for fd, pipe, end in zip((1, 2), former, ends, strict=True):
        with contextlib.suppress(OSError):  # the application may have closed or redirected it
            if os.path.samestat(os.fstat(fd), pipe):
                os.dup2(end, fd)
        os.close(end)


def same_file(one: int, other: int) -> bool:
    """Whether both descriptors lead to the same file, pipe or terminal; False if either is closed."""
    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return kind_of(one) is kind_of(other) and os.path.samestat(first, second)
