"""The workers as processes: their messages and deaths become events; orders become messages and signals.

Runs in the master's loop, beside `processes`, which has the zygotes. It decides nothing.
"""

import asyncio
import itertools
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from aserver import cgroups, unix
from aserver.errors import ChannelError
from aserver.ipc import messages as msg
from aserver.ipc.board import CELLS, BoardFile, Debugged
from aserver.master import border, handles
from aserver.master.border import clean
from aserver.master.core import events as ev
from aserver.master.handles import WorkerHandle, ZygoteHandle
from aserver.master.output import Output
from aserver.master.snapshot import SavedWorker
from aserver.metrics.totals import Totals

log = logging.getLogger("aserver.master")

#: Seconds that the zygote's report of an exit status may lag behind the pidfd; then the end is reported without it.
STATUS_PATIENCE = 0.5
#: Seconds that faulthandler gets to write its stacks before they are read; it took under 10 ms (measured).
DUMP_PATIENCE = 0.05
#: Seconds without a heartbeat, of which there are ten a second, that mean that a debugger holds the loop.
STILL = 0.5
#: Seconds for a worker's answer to Look. A loop that has not turned for so long is blocked, and its trace is taken.
ANSWER_PATIENCE = 1.0
#: Seconds that faulthandler gets to write that trace.
TRACE_PATIENCE = 0.1

Reply = Callable[[dict[str, Any]], None]


class Workers:
    """`on_event` is called for each event of the workers."""

    def __init__(
        self,
        zygotes: Mapping[int, ZygoteHandle],
        board: BoardFile,
        on_event: Callable[[ev.Event], None],
        output: Output,
    ) -> None:
        """`zygotes` are those that live, by generation."""
        self.all: dict[int, WorkerHandle] = {}
        self.totals = Totals()
        self._zygotes = zygotes
        self._board = board
        self._on_event = on_event
        self._output = output
        self._free_cells = list(range(CELLS - 1, 0, -1))
        self._loop = asyncio.get_running_loop()
        self.memory = OutOfMemory()
        self.looks = Looks(self.signal, board.read_text)

    def beats(self) -> dict[int, float]:
        """The last heartbeat of each worker, in monotonic seconds.

        A heartbeat that lies ahead counts as none: it would hide for ever that the worker hangs.
        """
        beats = {w.serial: self._board.beat(w.cell) for w in self.all.values()}
        now = time.monotonic_ns()
        return {serial: beat / 1e9 if beat <= now else 0.0 for serial, beat in beats.items()}

    def debugged(self, at_least: Debugged = Debugged.PERHAPS) -> frozenset[int]:
        """The serials of the workers that a debugger may hold, or that are at its prompt."""
        return frozenset(w.serial for w in self.all.values() if self._board.debugged(w.cell) >= at_least)

    def halted(self) -> bool:
        """Whether a debugger holds the loop of a worker now."""
        beats, latest = self.beats(), time.monotonic() - STILL
        return bool(self.debugged(Debugged.AT_PROMPT)) or any(beats[serial] < latest for serial in self.debugged())

    def counted(self) -> list[int]:
        """The counters of all workers, also of those that have gone: by the word of `metrics/page`."""
        for worker in self.all.values():
            self.totals.look(worker.cell, self._board.page(worker.cell))
        return self.totals.sums()

    # ── from the order to fork to the end ────────────────────────────────────────────────────

    def fork(self, order: msg.Fork) -> None:
        """Have its zygote fork a worker."""
        if not self._free_cells:
            failed = msg.ForkFailed(order.serial, f"{CELLS - 1} processes are the most that a server can have")
            self._loop.call_soon(self._on_event, failed)
            return
        worker = WorkerHandle(order.serial, order.generation, order.slot, self._free_cells.pop())
        self._board.clear(worker.cell)
        self.all[worker.serial] = worker
        if (zygote := self._zygotes.get(order.generation)) is not None:
            zygote.may_say += border.PER_FORK
            name = f"worker {order.slot}/g{order.generation}"
            try:
                with self._output.writing_ends(order.generation, order.serial, name) as ends:
                    zygote.channel.send(replace(order, cell=worker.cell), ends)
            except OSError as error:  # too many open files
                self._forget(worker)
                self._loop.call_soon(self._on_event, msg.ForkFailed(order.serial, error.strerror or str(error)))

    def inherit(self, saved: SavedWorker) -> None:
        """Take over a worker of this master's former image."""
        worker = self.all[saved.serial] = WorkerHandle.restored(saved)
        if (zygote := self._zygotes.get(saved.generation)) is not None:
            zygote.may_say += border.PER_FORK
        self._free_cells.remove(worker.cell)
        worker.watch(self._on_message, self._on_dead)

    def forked(self, zygote: ZygoteHandle, message: msg.Forked, fds: list[int], pids: set[int]) -> None:
        """Take in a new process; `pids` are those of the zygotes. Raises ChannelError if it is not to be believed."""
        worker = self.all.get(message.serial)
        # A worker whose status is known has been reaped: its pid may be reused before its pidfd is seen to be readable.
        known = pids | {each.pid for each in self.all.values() if each.pid is not None and each.status is None}
        border.believe_forked(message, fds, zygote, worker, known)
        assert worker is not None
        self._output.born(worker.generation, worker.serial, message.pid)
        worker.watch(self._on_message, self._on_dead)
        self._on_event(message)

    def fork_failed(self, zygote: ZygoteHandle, message: msg.ForkFailed) -> None:
        """There will be no process. Raises ChannelError if none was ordered."""
        self._forget(border.ordered(message, zygote, self.all.get(message.serial)))
        message.reason = clean(message.reason, border.LONGEST_WORD)
        self._on_event(message)

    def exited(self, zygote: ZygoteHandle, message: msg.Exited) -> None:
        """Note an exit status. Raises ChannelError if the process is not the zygote's."""
        worker = self.all.get(message.serial)
        if worker is None or not border.check_exited(message, zygote, worker):
            return
        worker.status = message.status
        if worker.dead or worker.pidfd is None:
            self._report_end(worker)

    def orphaned(self, generation: int) -> None:
        """Its zygote is gone: orders to fork died with it, and a status that it has not reported stays unknown."""
        for worker in [w for w in self.all.values() if w.generation == generation]:
            if worker.pid is None:
                self._forget(worker)
            elif worker.dead or (worker.channel is not None and worker.channel.eof and worker.pidfd is None):
                self._report_end(worker)

    def close(self) -> None:
        """Close all; a worker that still lives sees its channel end."""
        for worker in list(self.all.values()):
            self._forget(worker)

    def _on_message(self, worker: WorkerHandle) -> None:
        if worker.channel is None:
            return
        self._hear(worker)
        if worker.channel.eof:  # no death notice: a grandchild may hold the other end (docs/traps.md, 27)
            self._loop.remove_reader(worker.channel.fileno())
            if worker.pidfd is None and worker.generation not in self._zygotes:  # but here there is no other
                self._loop.call_soon(self._report_end, worker)

    def _hear(self, worker: WorkerHandle, turns: int = 1) -> None:
        if broken := border.hear(worker, self._on_says, turns):
            self.cut_off(worker, broken)

    def _on_says(self, worker: WorkerHandle, message: msg.FromWorker, _fds: list[int]) -> None:
        if not isinstance(message, msg.MoreFiles) and message.serial != worker.serial:
            raise ChannelError(f"{type(message).__name__} about serial {message.serial}, but it is {worker.serial}")
        match message:
            case msg.MoreFiles():
                worker.know(message.files)
                return
            case msg.Ready():
                worker.know(message.fingerprint)
                message.fingerprint = worker.files
            case msg.BootFailed():
                message.reason, message.detail = clean(message.reason), clean(message.detail, msg.LONGEST_TEXT)
            case msg.RecycleAsked():
                message.reason = clean(message.reason)
            case msg.Seen():
                self.looks.answered(worker, message)
                return
            case _:
                assert_never(message)
        self._on_event(message)

    def cut_off(self, worker: WorkerHandle, reason: str) -> None:
        """Read no more messages of a worker; it is replaced, and told to leave."""
        assert worker.channel is not None
        self._loop.remove_reader(worker.channel.fileno())
        worker.channel.cut_off()
        self._on_event(ev.Breached(worker.serial, reason))

    def _on_dead(self, worker: WorkerHandle) -> None:
        assert worker.pidfd is not None
        self._loop.remove_reader(worker.pidfd)
        worker.dead = True
        if worker.status is None:
            worker.status = unix.wait_pidfd(worker.pidfd)  # ours if its zygote died before it
        if worker.status is not None:
            self._report_end(worker)
        else:
            self._loop.call_later(STATUS_PATIENCE, self._report_end, worker)

    def _report_end(self, worker: WorkerHandle) -> None:
        """Report the end of a worker whose status is known, or not waited for any more, after its last messages."""
        if self.all.get(worker.serial) is not worker:
            return
        if worker.channel is not None:
            self._hear(worker, border.LAST_TURNS)
        self.looks.died(worker)
        self._log_trace(worker, f"the stacks at its end{self._owner(worker)}")
        self._forget(worker)
        code, signum = handles.decode_status(worker.status)
        self._on_event(ev.Died(worker.serial, code, signum, self.memory.why(signum)))

    def _forget(self, worker: WorkerHandle) -> None:
        worker.unwatch()
        self.all.pop(worker.serial, None)
        worker.close()
        self.totals.fold(worker.cell, self._board.page(worker.cell))
        self._board.clear(worker.cell)
        self._free_cells.append(worker.cell)

    # ── orders ───────────────────────────────────────────────────────────────────────────────

    def tell(self, serial: int, message: msg.Message, fds: Sequence[int] = ()) -> None:
        """Send a message to a worker, if it is known."""
        worker = self.all.get(serial)
        if worker is not None and worker.channel is not None:
            worker.channel.send(message, fds)

    def signal(self, serial: int, signum: signal.Signals) -> None:
        """Signal a worker: by its pidfd, or else by its zygote, never by a pid that another process may have by now."""
        worker = self.all.get(serial)
        if worker is None or worker.dead:
            return
        if worker.pidfd is not None:
            unix.send_signal(worker.pidfd, signum)
        elif (zygote := self._zygotes.get(worker.generation)) is not None:
            zygote.channel.send(msg.Kill(serial, signum))

    def dump_stacks(self, order: ev.DumpStacks) -> None:
        """Have a worker's stacks written, and log them."""
        self.signal(order.serial, signal.SIGUSR2)
        worker = self.all.get(order.serial)
        if worker is not None:
            title = f"its event loop has stood still for {order.silent:.1f} s{self._owner(worker)}, the stacks"
            self._loop.call_later(DUMP_PATIENCE, self._log_trace, worker, title)

    def _owner(self, worker: WorkerHandle) -> str:
        """The request that a stack most likely belongs to: a handler that blocks does so in its first step."""
        begun = self._board.read_text(worker.cell)
        return f" (the request begun last: {begun})" if begun else ""

    def _log_trace(self, worker: WorkerHandle, title: str) -> None:
        if self.all.get(worker.serial) is worker and (text := worker.new_stacks()):
            log.error("%s: %s:\n%s", worker, title, text)


class OutOfMemory:
    """The kernel's count of kills for want of memory, which explains a death by SIGKILL."""

    def __init__(self) -> None:
        self._seen = cgroups.oom_kills()[1]

    def why(self, signum: str | None) -> str:
        """The evidence that a process that ended by this signal was killed for memory; empty if there is none.

        A kill that is counted explains one death: several processes may be killed before the first end is reported.
        """
        whose, count = cgroups.oom_kills()
        before, self._seen = self._seen, count
        if signum != "SIGKILL" or count <= before:
            return ""
        self._seen = before + 1
        return f"oom_kill of {whose} rose from {before} to {count}"


class Looks:
    """Questions to workers that wait for their answer: which requests a worker has, or where its loop stands still.

    Answers are the application's word: they are cut and cleaned, and a worker may answer each question once.
    `send_signal` sends a signal to the worker of a serial; `begun_last` reads the request begun last from a cell.
    """

    def __init__(self, send_signal: Callable[[int, signal.Signals], None], begun_last: Callable[[int], str]) -> None:
        self._signal = send_signal
        self._begun_last = begun_last
        self._numbers = itertools.count(1)
        self._waiting: dict[tuple[int, int], tuple[Reply, asyncio.TimerHandle]] = {}
        self._loop = asyncio.get_running_loop()

    def ask(self, worker: WorkerHandle, reply: Reply) -> None:
        """Call `reply` with the requests, tasks and threads of `worker`."""
        number = next(self._numbers)
        timer = self._loop.call_later(ANSWER_PATIENCE, self._take_trace, worker, number)
        self._waiting[worker.serial, number] = (reply, timer)
        if worker.channel is not None:
            worker.may_say += 1
            worker.channel.send(msg.Look(number))

    def answered(self, worker: WorkerHandle, seen: msg.Seen) -> None:
        """A worker has answered; an answer that comes too late is left aside."""
        names = ("requests", "tasks", "threads", "clients")
        facts = {name: _clean(msgspec.to_builtins(getattr(seen, name))) for name in names}
        self._end(worker, seen.number, {"blocked": False, "of": seen.of, **facts})

    def died(self, worker: WorkerHandle) -> None:
        """There will be no answer."""
        for serial, number in list(self._waiting):
            if serial == worker.serial:
                self._end(worker, number, {"blocked": True, "begun_last": "", "trace": "the process has ended"})

    def _take_trace(self, worker: WorkerHandle, number: int) -> None:
        self._signal(worker.serial, signal.SIGUSR2)
        self._loop.call_later(TRACE_PATIENCE, self._read_trace, worker, number)

    def _read_trace(self, worker: WorkerHandle, number: int) -> None:
        if (worker.serial, number) not in self._waiting:
            return
        facts = {"blocked": True, "begun_last": self._begun_last(worker.cell), "trace": worker.new_stacks()}
        self._end(worker, number, facts)

    def _end(self, worker: WorkerHandle, number: int, facts: dict[str, Any]) -> None:
        reply, timer = self._waiting.pop((worker.serial, number), (None, None))
        if reply is not None and timer is not None:
            timer.cancel()
            reply({"slot": worker.slot, "pid": worker.pid, "generation": worker.generation, **facts})


def _clean(value: Any) -> Any:
    """`value` with every text in it fit for a terminal."""
    if isinstance(value, str):
        return clean(value, msg.LONGEST_STACK + 100)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return {name: _clean(each) for name, each in value.items()} if isinstance(value, dict) else value
