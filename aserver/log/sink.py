"""A log of this process: lines go to a descriptor without a wait for its reader, a torn line, or a lock.

Every process (master, zygote, worker) has its own `Sink` over each log; no process carries another's lines.

Rules for changes to this module:

* `write` is called from signal handlers, finalisers and other threads. So it has no lock, no `queue.Queue` and no
  buffered file. Lines go into a deque, and the call that gets the *claim* (an atomic `dict.setdefault`) writes them. A
  call that does not get it returns at once: the owner looks at the deque again after giving the claim up.
* A line leaves whole or not at all, and the loop never waits for a reader: `descriptor` sees to that.
"""

import errno
import os
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from aserver.log.descriptor import Descriptor
from aserver.log.opening import SinkKind, kind_of
from aserver.log.waker import RETRY_PAUSE, Wait, Waker

#: Bytes that a blocked sink keeps: error records are worth more memory than access lines.
ACCESS_BOUND = 1 << 20
ERROR_BOUND = 4 << 20
CUT = b" [cut]\n"
#: Seconds between two complaints about the same sink.
COMPLAINT_PAUSE = 10.0

_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SinkState(Enum):
    """How the last write ended."""

    OPEN = "open"
    BLOCKED = "blocked"  # EAGAIN: the reader does not read
    FULL = "full"  # ENOSPC and the like: lines are kept, tried again once per RETRY_PAUSE
    BROKEN = "broken"  # EPIPE and the like: lines are dropped, tried again once per RETRY_PAUSE
    CLOSED = "closed"


_WAITS = {SinkState.BLOCKED: Wait.READER, SinkState.FULL: Wait.ROOM}


def _joined(lines: list[str]) -> bytes:
    return "".join(lines).encode("ascii", "backslashreplace")


def _unchanged(batch: list[str]) -> list[str]:
    return batch


def _silent(_sink: "Sink", _text: str) -> None:
    """The default of `Sink.report`: `setup` sets another."""


class Sink:
    """A log of this process. Owns `fd`; `write` never waits and never raises.

    `report` is called with the sink and a sentence: when the sink stops working, at most once per COMPLAINT_PAUSE, and
    when it works again and lines were lost. It may write to the sink.

    Access lines are gathered in `batch`, of which each entry is a line, or `make` makes a line of it; they leave at the
    end of the loop's turn. Entries are appended directly, without a call (`setup.Lines` has the rules), and only in the
    loop's thread.
    """

    wants_records = False  # see `setup.Lines`

    def __init__(self, fd: int, kind: SinkKind, *, name: str = "log", bound: int = ERROR_BOUND) -> None:
        self.descriptor = Descriptor(fd, kind)
        self.name = name
        self.bound = bound
        self.lost = 0  # since the trouble began
        self.dropped = 0  # ever
        self.report: Callable[[Sink, str], None] = _silent
        self.state = SinkState.OPEN
        self._queue: deque[tuple[bytes, int]] = deque()  # (whole lines, their number of records)
        self._queued = 0  # bytes; may drift by a race, is set right whenever the queue is empty
        self._offset = 0  # bytes of the queue's first entry that are written already
        self._fresh = False  # the next byte must begin a line
        self._claim: dict[int, object] = {}  # at 0: the call that writes now
        self._pid = os.getpid()
        self._retry_at = 0.0
        self._complain_at = 0.0
        self._trouble_since = 0.0
        self.trouble = ""
        self._notices: deque[str] = deque()
        self.batch: list[Any] = []
        self.make: Callable[[list[Any]], list[str]] = _unchanged
        self._loop: AbstractEventLoop | None = None
        self._waker = Waker(self.descriptor, self._waits, self._pump)

    @classmethod
    def for_fd(cls, fd: int, *, name: str = "log", bound: int = ERROR_BOUND) -> "Sink":
        """Make the sink of a descriptor that came from `open_log`, in whichever process. Raises OSError (EBADF)."""
        return cls(fd, kind_of(fd), name=name, bound=bound)

    @property
    def fd(self) -> int:
        """The descriptor; -1 when closed."""
        return self.descriptor.fd

    @property
    def kind(self) -> SinkKind:
        """The kind of file that the descriptor leads to."""
        return self.descriptor.kind

    @property
    def limit(self) -> int | None:
        """How many bytes are sure to stay together; longer records are cut."""
        return self.descriptor.limit

    # ── hand over ────────────────────────────────────────────────────────────────────────────

    def write(self, record: bytes, records: int = 1) -> None:
        """Write a record of whole lines now, or keep it until the sink takes it. Safe in a signal handler.

        Several `records` together must not be longer than `limit`.
        """
        limit = self.descriptor.limit
        if limit is not None and len(record) > limit:
            record = record[: limit - len(CUT)] + CUT
        self._put(record, records, self.bound)
        self._pump()

    def begin(self) -> None:
        """Write the batch, which has just got its first line, when this turn of the loop ends; without a loop, now."""
        if self._loop is not None:
            try:
                self._loop.call_soon(self.flush)
            except RuntimeError:  # the loop is closed
                self._loop = None
            else:
                return
        self.flush()

    def flush(self) -> None:
        """Write the batch: a single write(2) to a file, pieces of whole lines up to `limit` elsewhere."""
        if not self.batch:
            return
        batch = self.batch.copy()
        self.batch.clear()
        batch = self.make(batch)
        if (limit := self.descriptor.limit) is not None:
            self._put_pieces(batch, limit)
        elif self._queue or self.state is not SinkState.OPEN:
            self._put(_joined(batch), len(batch), self._lines_bound())
        else:
            self._write_at_once(_joined(batch), len(batch))
        if self._queue:
            self._pump()

    def _write_at_once(self, data: bytes, records: int) -> None:
        """Do the work of queue and claim 1 us sooner: a regular file takes all, or the disk is full."""
        try:
            written = os.write(self.descriptor.fd, data)
        except OSError:
            written = 0  # `_pump` gets the same error and deals with it
        if written < len(data):
            self._put(data, records, self._lines_bound())
            self._offset = written

    def _put_pieces(self, batch: list[str], limit: int) -> None:
        piece: list[str] = []
        size = 0
        for line in batch:
            whole = line if len(line) <= limit else line[: limit - len(CUT)] + CUT.decode()
            if size + len(whole) > limit:
                self._put(_joined(piece), len(piece), self._lines_bound())
                piece, size = [], 0
            piece.append(whole)
            size += len(whole)
        self._put(_joined(piece), len(piece), self._lines_bound())

    def _lines_bound(self) -> int:
        """The bound for access lines: they must leave room for error records where both have the same sink."""
        return min(self.bound, ACCESS_BOUND)

    def _put(self, data: bytes, records: int, bound: int) -> None:
        if os.getpid() != self._pid:
            self.forget()
        if self._queue and self._queued + len(data) > bound:
            self._pump()  # the sink may take it by now
        if self._queue and self._queued + len(data) > bound:
            self._lose(records)
        else:
            self._queued += len(data)
            self._queue.append((data, records))

    # ── write ────────────────────────────────────────────────────────────────────────────────

    def _pump(self) -> None:
        """Write the queue, unless a call further down this stack or in another thread is writing it already."""
        me = object()
        while self._queue:
            try:
                # The claim is made inside the try: a user's signal handler may raise between any two bytecodes.
                if self._claim.setdefault(0, me) is not me:
                    return
                finished = self._write_queue()
            finally:
                if self._claim.get(0) is me:
                    del self._claim[0]
            while self._notices:
                self.report(self, self._notices.popleft())
            if not finished:
                return

    def _write_queue(self) -> bool:
        """Write until the queue is empty (True) or the descriptor takes no more (False). The caller holds the claim."""
        queue = self._queue
        if self._retry_at and time.monotonic() < self._retry_at:
            if self.state is SinkState.BROKEN:
                self._drop_all()
            return False
        while queue:
            data, _records = queue[0]
            try:
                self._send_first(data)
            except BlockingIOError:
                self._enter(SinkState.BLOCKED, "its reader does not read")
                return False
            except OSError as error:
                self._failed(error)
                return False
            if self._offset >= len(data):
                self._offset = 0
                self._queued -= len(data)
                queue.popleft()
        self._queued = 0
        if self.state is not SinkState.OPEN:
            self._recovered()
        return True

    def _send_first(self, data: bytes) -> None:
        """Write the queue's first entry from `_offset` on, once; after a torn line, first end that line."""
        lead = b"\n" if self._fresh else b""
        piece = lead + data if self._offset == 0 else data[self._offset :]
        patient = self.state is SinkState.OPEN
        sent = self.descriptor.send(piece, begun=self._offset > 0, patient=patient)
        if lead and sent:
            self._fresh = False
            sent -= 1
        self._offset += sent

    def _failed(self, error: OSError) -> None:
        self._retry_at = time.monotonic() + RETRY_PAUSE
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL_ERRORS:
            # Part of a line may be written, and other processes may write behind it before there is room. So it is
            # written again, on a line of its own. Each process begins a line, because the torn line may be another's.
            data, records = self._queue[0]
            if records > 1 and (whole := data.rfind(b"\n", 0, self._offset) + 1):
                self._queue[0] = (data[whole:], records - data.count(b"\n", 0, whole))
                self._queued -= whole
            self._offset = 0
            self._fresh = True
            self._enter(SinkState.FULL, reason)
        else:
            self._drop_all()
            self._enter(SinkState.BROKEN, reason)

    def _drop_all(self) -> None:
        self._fresh = self._fresh or self._offset > 0
        while self._queue:
            self._lose(self._queue.popleft()[1])
        self._queued = self._offset = 0

    def _lose(self, records: int) -> None:
        self.lost += records
        self.dropped += records

    def _enter(self, state: SinkState, trouble: str) -> None:
        now = time.monotonic()
        if self.state is SinkState.OPEN:
            self._trouble_since = now
        self.state = state
        self.trouble = trouble
        if state is not SinkState.BLOCKED and now >= self._complain_at:
            self._complain_at = now + COMPLAINT_PAUSE
            fate = "are lost" if state is SinkState.BROKEN else f"are kept up to {self.bound} bytes, then lost"
            self._notices.append(f"cannot write the {self.name}: {trouble}; lines {fate} until it works again")
        self._wake_later()

    def _waits(self) -> Wait:
        return _WAITS.get(self.state, Wait.NOTHING) if self._queue else Wait.NOTHING

    def _wake_later(self) -> None:
        if self._queue:
            self._waker.ask()

    def _recovered(self) -> None:
        lost, self.lost = self.lost, 0
        self.state = SinkState.OPEN
        self._retry_at = 0.0
        self._waker.stop()
        if lost:
            seconds = time.monotonic() - self._trouble_since
            lines = "line was" if lost == 1 else "lines were"
            self._notices.append(f"{self.name}: {lost} {lines} lost in {seconds:.1f} s ({self.trouble})")

    # ── life ─────────────────────────────────────────────────────────────────────────────────

    def attach(self, loop: AbstractEventLoop | None) -> None:
        """Let `loop` write the batch each turn and wake the sink; None before the loop closes. In the loop's thread."""
        self._loop = loop
        self._waker.attach(loop)
        if loop is None:
            self.flush()
        elif self.state is not SinkState.OPEN:
            self._wake_later()

    def replace(self, fd: int) -> None:
        """Go on with `fd` (taken over and closed), under the same number and with nothing lost; for reopening.

        In the loop's thread. The lines that the old file did not take go to the new one. A sink that is closed only
        closes `fd`. Raises OSError for a bad `fd`.
        """
        if self.fd < 0:
            os.close(fd)
            return
        kind = kind_of(fd)
        self.flush()
        if self.descriptor.leads_to(fd):
            # Half a line may be written, and the rest belongs behind it.
            self.descriptor.drop(fd, begun=self._offset > 0)
            self._pump()
            return
        self._waker.stop()
        self.descriptor.replace(fd, kind)
        self._offset = 0
        self._fresh = False
        self._retry_at = 0.0
        self._pump()

    def forget(self) -> None:
        """Drop the queue and the loop, which are the parent's; called in a forked child."""
        self._pid = os.getpid()
        self.descriptor.renew_lock()
        self._queue.clear()
        self._claim.clear()
        self._notices.clear()
        self.batch.clear()
        self._queued = self._offset = self.lost = self.dropped = 0
        self._loop = None
        self._waker.forget()
        self.state = SinkState.OPEN
        self._retry_at = 0.0

    def close(self, seconds: float = 1.0) -> int:
        """Write the rest, waiting at most `seconds` for the reader, and close. For a process that ends.

        Returns how many records were lost for ever.
        """
        if self.fd < 0:
            return 0
        self.attach(None)
        self._pump()
        deadline = time.monotonic() + seconds
        while self._queue and self.state is SinkState.BLOCKED and (left := deadline - time.monotonic()) > 0:
            self.descriptor.wait(left)
            self._pump()
        self._drop_all()
        self.state = SinkState.CLOSED
        self.report = _silent
        self.descriptor.close()
        return self.lost
