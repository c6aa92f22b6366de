"""Lines to a descriptor, without ever waiting for it, tearing a line, or taking a lock.

Every process (master, zygote, worker) has its own `Sink` over each log; no process carries another's lines.

Rules for whoever edits this module:

* `write` is called from signal handlers, finalisers and other threads. So there is no lock, no `queue.Queue` and
  no buffered file in it: lines go into a deque, and whoever holds the *turn* (an atomic `dict.setdefault`) writes
  them. Who does not get the turn leaves: the holder looks at the deque again after giving the turn back.
* A line leaves whole or not at all, and the loop never waits for a reader: how, is `outlet`'s.
"""

import errno
import os
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from aserver.log.descriptor import Outlet
from aserver.log.opening import SinkKind, kind_of

#: Bytes that a blocked sink keeps: access lines are the first to go, error records are worth more memory.
ACCESS_BOUND = 1 << 20
ERROR_BOUND = 4 << 20
#: So many access lines (about 64 KB) are written before the tick ends. Adding up their bytes instead cost 60 ns each.
BATCH = 256
CUT = b" [cut]\n"
#: Seconds between two tries on a full disk or a broken pipe, where no readiness is ever reported.
RETRY_PAUSE = 1.0
#: Seconds between two looks at a blocked sink that must not be given to the loop (`Outlet.watchable`).
LOOK_PAUSE = 0.01
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


def _joined(lines: list[str]) -> bytes:
    return "".join(lines).encode("ascii", "backslashreplace")


def _as_they_are(batch: list[str]) -> list[str]:
    return batch


def _silent(_sink: "Sink", _text: str) -> None:
    """Report to nobody, until `setup` says to whom."""


class Sink:
    """One log of this process. Owns `fd`; `write` and `append` never wait and never raise.

    `report` is called with the sink and a sentence, at most once per COMPLAINT_PAUSE when it stops working and
    once when it works again and lines were lost; by then the sink may be written to again.
    """

    def __init__(self, fd: int, kind: SinkKind, *, name: str = "log", bound: int = ERROR_BOUND) -> None:
        self.outlet = Outlet(fd, kind)
        self.name = name
        self.bound = bound
        self.lost = 0
        self.report: Callable[[Sink, str], None] = _silent
        self.state = SinkState.OPEN
        self._queue: deque[tuple[bytes, int]] = deque()  # (whole lines, how many records that is)
        self._queued = 0  # bytes; may drift by a race, is set right whenever the queue is empty
        self._offset = 0  # bytes of the queue's head that are out already
        self._fresh = False  # the next byte must begin a line
        self._turn: dict[int, object] = {}
        self._pid = os.getpid()
        self._retry_at = 0.0
        self._complain_at = 0.0
        self._trouble_since = 0.0
        self.trouble = ""
        self._notices: deque[str] = deque()
        self.batch: list[Any] = []  # this tick's access lines, or what `make` makes them of
        self.make: Callable[[list[Any]], list[str]] = _as_they_are
        self.most = 1  # so many lines are written before the tick ends; without a loop, each one
        self._loop: AbstractEventLoop | None = None
        self._wake_asked = False
        self._watching: AbstractEventLoop | None = None
        self._timer: TimerHandle | None = None

    @classmethod
    def for_fd(cls, fd: int, *, name: str = "log", bound: int = ERROR_BOUND) -> "Sink":
        """Make the sink of a descriptor that came from `open_log`, in whichever process. Raises OSError (EBADF)."""
        return cls(fd, kind_of(fd), name=name, bound=bound)

    @property
    def fd(self) -> int:
        """The descriptor; -1 when closed."""
        return self.outlet.fd

    @property
    def kind(self) -> SinkKind:
        """What is behind it."""
        return self.outlet.kind

    @property
    def limit(self) -> int | None:
        """How many bytes are sure to stay together; longer records are cut."""
        return self.outlet.limit

    # ── hand over ────────────────────────────────────────────────────────────────────────────

    def write(self, record: bytes) -> None:
        """Write one record of whole lines now, or keep it until the sink takes it. Safe in a signal handler."""
        limit = self.outlet.limit
        if limit is not None and len(record) > limit:
            record = record[: limit - len(CUT)] + CUT
        self._put(record, 1, self.bound)
        self._pump()

    def append(self, line: str) -> None:
        """Add one access line, which is ASCII, to this tick's batch. Only in the loop's thread.

        `recorder` does the same without the call.
        """
        if not self.batch:
            self.begin()
        self.batch.append(line)
        if len(self.batch) >= self.most:
            self.flush()

    def begin(self) -> None:
        """See to it that the batch, which is empty yet, leaves at the end of this turn of the loop."""
        if self._loop is not None:
            try:
                self._loop.call_soon(self.flush)
            except RuntimeError:  # the loop is closed
                self._loop = None
                self.most = 1

    def flush(self) -> None:
        """Write the batch: one write(2) to a file, pieces of whole lines up to `limit` elsewhere."""
        if not self.batch:
            return
        batch = self.batch.copy()
        self.batch.clear()
        batch = self.make(batch)
        if (limit := self.outlet.limit) is not None:
            self._put_pieces(batch, limit)
        elif self._queue or self.state is not SinkState.OPEN:
            self._put(_joined(batch), len(batch), self._lines_bound())
        else:
            self._write_at_once(_joined(batch), len(batch))
        if self._queue:
            self._pump()

    def _write_at_once(self, data: bytes, records: int) -> None:
        """Do what queue and turn would, 1 us sooner: a regular file takes all, or the disk is full."""
        try:
            written = os.write(self.outlet.fd, data)
        except OSError:
            written = 0  # `_pump` meets it again, and knows what to do
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
        """Of access lines, which must leave room for records where both have the same sink."""
        return min(self.bound, ACCESS_BOUND)

    def _put(self, data: bytes, records: int, bound: int) -> None:
        if os.getpid() != self._pid:
            self.forget()
        if self._queue and self._queued + len(data) > bound:
            self._pump()  # nothing is dropped that the sink would take by now
        if self._queue and self._queued + len(data) > bound:
            self.lost += records
        else:
            self._queued += len(data)
            self._queue.append((data, records))

    # ── write ────────────────────────────────────────────────────────────────────────────────

    def _pump(self) -> None:
        """Write what is queued, if it is not being written already further down this stack or in another thread."""
        me = object()
        while self._queue:
            try:
                # The turn is taken inside the try: a user's signal handler may raise between any two bytecodes.
                if self._turn.setdefault(0, me) is not me:
                    return
                finished = self._drain()
            finally:
                if self._turn.get(0) is me:
                    del self._turn[0]
            while self._notices:
                self.report(self, self._notices.popleft())
            if not finished:
                return

    def _drain(self) -> bool:
        """With the turn: write until nothing is queued (True) or the sink takes no more (False)."""
        queue = self._queue
        if self._retry_at and time.monotonic() < self._retry_at:
            if self.state is SinkState.BROKEN:
                self._drop_all()
            return False
        while queue:
            data, _records = queue[0]
            try:
                self._send_head(data)
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

    def _send_head(self, data: bytes) -> None:
        """Write from `_offset` on, once; after a torn line, first end that line."""
        lead = b"\n" if self._fresh else b""
        piece = lead + data if self._offset == 0 else data[self._offset :]
        patient = self.state is SinkState.OPEN
        sent = self.outlet.send(piece, begun=self._offset > 0, patient=patient)
        if lead and sent:
            self._fresh = False
            sent -= 1
        self._offset += sent

    def _failed(self, error: OSError) -> None:
        self._retry_at = time.monotonic() + RETRY_PAUSE
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL_ERRORS:
            # Part of a line may be out, and others may write behind it before there is room: it is written again,
            # on a line of its own. Each process begins a line, because the torn one may be another's.
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
            self.lost += self._queue.popleft()[1]
        self._queued = self._offset = 0

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

    def _recovered(self) -> None:
        lost, self.lost = self.lost, 0
        self.state = SinkState.OPEN
        self._retry_at = 0.0
        self._unwatch()
        if lost:
            seconds = time.monotonic() - self._trouble_since
            lines = "line was" if lost == 1 else "lines were"
            self._notices.append(f"{self.name}: {lost} {lines} lost in {seconds:.1f} s ({self.trouble})")

    # ── the loop ─────────────────────────────────────────────────────────────────────────────

    def attach(self, loop: AbstractEventLoop | None) -> None:
        """Let `loop` flush each tick and wake the sink; None before the loop closes. In the loop's thread."""
        self._unwatch()
        self._loop = loop
        self.most = 1 if loop is None else BATCH
        self._wake_asked = False
        if loop is None:
            self.flush()
        elif self.state is not SinkState.OPEN:
            self._wake_later()

    def _wake_later(self) -> None:
        if self._loop is not None and self._queue and not self._wake_asked:
            try:
                self._loop.call_soon_threadsafe(self._watch)  # we may be in any thread, or in a signal handler
                self._wake_asked = True
            except RuntimeError:  # the loop is closed: the next write tries again
                self._loop = None

    def _watch(self) -> None:
        self._wake_asked = False
        if self._loop is None or self._watching is not None or self._timer is not None:
            return
        if self.state is SinkState.BLOCKED and self.outlet.watchable:
            self._watching = self._loop
            self._loop.add_writer(self.fd, self._woken)
        elif self.state in (SinkState.BLOCKED, SinkState.FULL):
            pause = LOOK_PAUSE if self.state is SinkState.BLOCKED else RETRY_PAUSE
            self._timer = self._loop.call_later(pause, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._pump()
        if self.state is not SinkState.BLOCKED:
            self._unwatch()  # a broken pipe reports readiness for ever
        if self._queue:
            self._watch()

    def _unwatch(self) -> None:
        loop, self._watching = self._watching, None
        if loop is not None and not loop.is_closed():
            loop.remove_writer(self.fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ── life ─────────────────────────────────────────────────────────────────────────────────

    def replace(self, fd: int) -> None:
        """Go on writing to `fd` (taken over and closed), under the same number and with nothing lost; for reopening.

        In the loop's thread. What was queued for the old file goes to the new one. Raises OSError for a bad `fd`.
        """
        kind = kind_of(fd)
        self.flush()
        if self.outlet.leads_to(fd):
            # Half a line may be out, and the rest belongs behind it.
            self.outlet.drop(fd, begun=self._offset > 0)
            self._pump()
            return
        self._unwatch()
        self.outlet.replace(fd, kind)
        self._offset = 0
        self._fresh = False
        self._retry_at = 0.0
        self._pump()

    def forget(self) -> None:
        """After fork, in the child: what is queued is the parent's to write, and so is the parent's loop."""
        self._pid = os.getpid()
        self.outlet.renew_lock()
        self._queue.clear()
        self._turn.clear()
        self._notices.clear()
        self.batch.clear()
        self._queued = self._offset = self.lost = 0
        self._loop = self._watching = self._timer = None
        self.most = 1
        self._wake_asked = False
        self.state = SinkState.OPEN
        self._retry_at = 0.0

    def close(self, seconds: float = 1.0) -> int:
        """Write what is left, waiting at most `seconds` (the process leaves, nobody is kept waiting), and close.

        Returns how many records were lost for ever.
        """
        if self.fd < 0:
            return 0
        self.attach(None)
        self._pump()
        deadline = time.monotonic() + seconds
        while self._queue and self.state is SinkState.BLOCKED and (left := deadline - time.monotonic()) > 0:
            self.outlet.wait(left)
            self._pump()
        self._drop_all()
        self.state = SinkState.CLOSED
        self.report = _silent
        self.outlet.close()
        return self.lost
