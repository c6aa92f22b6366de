"""The board: shared memory with a cell for each worker process, written by that process and read by all.

The master makes it (a memfd); zygotes and workers map it. A cell belongs to a process, never to a slot: else the beat
of a draining worker would hide that the new worker of its slot hangs (docs/traps.md, 34). Each field is one aligned
64-bit word with one writer, the cell's worker. So no lock is needed, and a killed writer leaves no half-written value.

The application's code can write to every cell. So the file is sealed against another size (`unix.memory_file`), and the
master never maps it: `BoardFile` uses pread(2) and pwrite(2), which cannot end in SIGBUS where sealing is missing.

Behind the cells each has a page of counters (`metrics/page`), apart from them because a worker reads others' cells.
"""

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import partial

from aserver import unix
from aserver.metrics.page import ALL_WORDS, PAGE_SIZE

CELL_SIZE = 256  # bytes: whole cache lines, so that workers do not slow each other down
CELLS = 1024  # 256 KB in all, for more processes at once than a server has
_PAGES = CELL_SIZE * CELLS  # where the pages of counters begin; unused pages take no memory
_SIZE = _PAGES + PAGE_SIZE * CELLS
_WORDS = 64  # bytes of a cell that hold words; the rest is text
_TEXT = struct.Struct(f"{CELL_SIZE - _WORDS}s")  # cut to that length, or filled up with NULs
_WORD = struct.Struct("=Q")
_HEADER = 0  # the first cell is the board's own; its first word is the highest number of a cell that was given out
_HALF_LINES = 1  # the next two words of the first cell, for `HalfLine`


class Field(IntEnum):
    """The words of a cell."""

    BEAT = 0  # time.monotonic_ns() of the worker's last heartbeat; 0 before the first
    CONNECTIONS = 1  # open connections; of HTTP/2 each stream counts as one
    REQUESTS = 2  # requests finished
    ACTIVE = 3  # requests under way
    ACCEPTING = 4  # 1 while the worker accepts, so that others share the load with it
    WEBSOCKETS = 5  # connections that are WebSockets, counted about once a second
    LAG = 6  # nanoseconds: the latest that a heartbeat was in the last second, which is how long the loop was kept
    DEBUGGED = 7  # a `Debugged`


class Debugged(IntEnum):
    """Whether a debugger may hold the loop of a worker."""

    NO = 0
    PERHAPS = 1
    AT_PROMPT = 2  # pdb reads the terminal: Ctrl-C is its own


class BoardFile:
    """The master's side of the board. `fd` is passed to the other processes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> "BoardFile":
        """A new board of zeros."""
        return cls(unix.memory_file("aserver-board", _SIZE))

    def beat(self, index: int) -> int:
        """The heartbeat in a cell; 0 where the file has been cut."""
        data = os.pread(self.fd, _WORD.size, index * CELL_SIZE + Field.BEAT * _WORD.size)
        return int(_WORD.unpack(data)[0]) if len(data) == _WORD.size else 0

    def debugged(self, index: int) -> int:
        """Whether a debugger may hold the worker of a cell: a `Debugged`, or any number that the application wrote."""
        words = self.words(index)
        return Debugged.NO if words is None else words[Field.DEBUGGED]

    def words(self, index: int) -> tuple[int, ...] | None:
        """The words of a cell, by `Field`; None where the file has been cut."""
        data = os.pread(self.fd, _WORDS, index * CELL_SIZE)
        return struct.unpack(f"={_WORDS // _WORD.size}Q", data) if len(data) == _WORDS else None

    def read_text(self, index: int) -> str:
        """The text noted last, in ASCII for a log line."""
        text = os.pread(self.fd, _TEXT.size, index * CELL_SIZE + _WORDS).rstrip(b"\0")
        return ascii(text.decode("latin-1"))[1:-1]

    def page(self, index: int) -> bytes:
        """The page of counters of a cell; shorter where the file has been cut."""
        return os.pread(self.fd, PAGE_SIZE, _PAGES + index * PAGE_SIZE)

    def clear(self, index: int) -> None:
        """Zero a cell: before it is given to a new process, and when that has died."""
        os.pwrite(self.fd, bytes(CELL_SIZE), index * CELL_SIZE)
        os.pwrite(self.fd, bytes(PAGE_SIZE), _PAGES + index * PAGE_SIZE)
        data = os.pread(self.fd, _WORD.size, _HEADER)
        given_out = int(_WORD.unpack(data)[0]) if len(data) == _WORD.size else 0
        if not index <= given_out < CELLS:
            # A count that a worker has overwritten becomes the whole board: readers then look at unused cells too.
            os.pwrite(self.fd, _WORD.pack(index if given_out < index else CELLS - 1), _HEADER)

    def tell_readiness(self, *, ready: bool, reason: str) -> None:
        """Tell the workers, for `health_check`, whether clients should be sent to this server."""
        text = (b"+" if ready else b"-") + reason.encode("utf-8", "replace")
        os.pwrite(self.fd, _TEXT.pack(text), _HEADER * CELL_SIZE + _WORDS)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


class HalfLine:
    """A note that some process has written half a line to the terminal of a log. It outlives that process.

    `log` is 0 for the error log, 1 for the access log. The note has a descriptor of its own, because the board may be
    closed before the log. Only a process that holds the terminal's locks may use it (log/descriptor.py).
    """

    def __init__(self, board_fd: int, log: int) -> None:
        self._fd = os.dup(board_fd)
        self._offset = _HEADER * CELL_SIZE + (_HALF_LINES + log) * _WORD.size

    def get(self) -> bool:
        """Whether half a line stands there."""
        return os.pread(self._fd, _WORD.size, self._offset).strip(b"\0") != b""

    def put(self, *, half: bool) -> None:
        """Note whether half a line stands there."""
        os.pwrite(self._fd, _WORD.pack(half), self._offset)


class Board:
    """The side of zygotes and workers: all cells, mapped. Raises OSError or ValueError if `fd` is no board."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._words = memoryview(self._map).cast("Q")

    def writer(self, index: int) -> Callable[[bytes], None]:
        """A function that notes a text in a cell: the target of the request begun last. It is in C and takes 0.1 us."""
        return partial(_TEXT.pack_into, self._map, index * CELL_SIZE + _WORDS)

    def cell(self, index: int) -> memoryview:
        """The words of a cell, by `Field`."""
        width = CELL_SIZE // 8
        return self._words[index * width : (index + 1) * width]

    def page(self, index: int) -> memoryview:
        """The words of the page of a cell."""
        begin = (_PAGES + index * PAGE_SIZE) // 8
        return self._words[begin : begin + ALL_WORDS]

    def readiness(self) -> tuple[bool, str]:
        """Whether clients should be sent to this server, and why (not), as the master has told it."""
        text = _TEXT.unpack_from(self._map, _HEADER * CELL_SIZE + _WORDS)[0].rstrip(b"\0").decode("utf-8", "replace")
        return text.startswith("+"), text[1:] or "the server boots"

    def used(self, begin: int = 0, most: int = CELLS) -> Iterator[tuple[int, memoryview]]:
        """The cells that were ever given out, with their numbers: at most `most`, counted round from behind `begin`.

        A count that a worker has overwritten is cut to the size of the board.
        """
        count = min(self._words[_HEADER], CELLS - 1)
        for number in range(begin, begin + min(most, count)):
            index = _HEADER + 1 + number % count
            yield index, self.cell(index)

    def close(self) -> None:
        """Unmap and close; cells handed out must be released before."""
        self._words.release()
        self._map.close()
        os.close(self.fd)
