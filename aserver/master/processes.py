"""The zygotes and workers that there are, as processes: their channels, pidfds, board cells and last words.

Runs in the master's loop. It turns what they say and how they end into events for `on_event`, and passes orders on to
them; it decides nothing. Everything about a process is forgotten in one place, when its death is understood.
"""

import asyncio
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, assert_never

from aserver import unix
from aserver.errors import ChannelError
from aserver.ipc import messages as msg
from aserver.ipc.board import CELLS, BoardFile
from aserver.log.crash import read_trace
from aserver.master import border, handles
from aserver.master.border import clean
from aserver.master.code_watch import Fingerprint
from aserver.master.core import events as ev
from aserver.master.core.explain import Intent, explain_exit
from aserver.master.handles import WorkerHandle, ZygoteHandle
from aserver.master.snapshot import SavedWorker, SavedZygote, Snapshot

log = logging.getLogger("aserver.master")

P = TypeVar("P", ZygoteHandle, WorkerHandle)

#: Seconds that the zygote's report of an exit status may lag behind the pidfd before the death is taken without it.
STATUS_PATIENCE = 0.5
#: Of what a dead process has sent, so many turns' share is heard: all that a socket holds, unless a grandchild of it
#: that holds the other end goes on sending.
LAST_TURNS = 8
#: Without pidfds: seconds between the end of a zygote's channel and asking for its exit status.
EOF_PATIENCE = 0.1
#: Seconds that faulthandler gets to write its stacks before they are read; it took under 10 ms (measured).
DUMP_PATIENCE = 0.05


class Processes:
    """`on_event` hears what happens to the processes, `on_files` which files a generation's code came from."""

    def __init__(
        self,
        on_event: Callable[[ev.Event], None],
        on_files: Callable[[int, Fingerprint], None],
        board: BoardFile | None = None,
    ) -> None:
        self.zygotes: dict[int, ZygoteHandle] = {}
        self.workers: dict[int, WorkerHandle] = {}
        self.board = board or BoardFile.create()
        self._on_event = on_event
        self._on_files = on_files
        self._free_cells = list(range(CELLS - 1, 0, -1))
        self._loop = asyncio.get_running_loop()
        self._oom_kills = unix.oom_kills()

    @property
    def pids(self) -> list[int]:
        """Of every process whose exit status is waited for."""
        return [z.pid for z in self.zygotes.values()] + [w.pid for w in self.workers.values() if w.pid is not None]

    def beats(self) -> dict[int, float]:
        """The last heartbeat of each worker, in monotonic seconds.

        A heartbeat that lies ahead counts as none: it would hide for ever that the worker hangs.
        """
        beats = {w.serial: self.board.beat(w.cell) for w in self.workers.values()}
        now = time.monotonic_ns()
        return {serial: beat / 1e9 if beat <= now else 0.0 for serial, beat in beats.items()}

    @property
    def quiet(self) -> bool:
        """Whether no message to or from a peer is half through this process, and the end of each is understood."""
        return not self._halves() and not any(zygote.broken for zygote in self.zygotes.values())

    def _halves(self) -> list[ZygoteHandle | WorkerHandle]:
        peers: list[ZygoteHandle | WorkerHandle] = [*self.zygotes.values(), *self.workers.values()]
        return [peer for peer in peers if peer.channel and not peer.channel.eof and not peer.channel.quiet]

    def cut_off_halves(self, reason: str) -> None:
        """Wait no longer for the rest of any message."""
        for peer in self._halves():
            self.cut_off(peer, reason)

    def saved_zygotes(self) -> list[SavedZygote]:
        """For the next image of this master; there are pidfds, or there would be no upgrade."""
        return [zygote.saved() for zygote in self.zygotes.values() if zygote.pidfd is not None]

    def saved_workers(self) -> list[SavedWorker]:
        """For the next image of this master."""
        return [worker.saved() for worker in self.workers.values()]

    def inherit(self, snapshot: Snapshot) -> None:
        """Watch over those whom this master's former image knew."""
        for z in snapshot.zygotes:
            self._keep_zygote(ZygoteHandle.inherited(z))
        for w in snapshot.workers:
            worker = self.workers[w.serial] = WorkerHandle.inherited(w)
            if (zygote := self.zygotes.get(w.generation)) is not None:
                zygote.may_say += border.PER_FORK
            self._free_cells.remove(worker.cell)
            self._watch_worker(worker)

    def close(self) -> None:
        """Forget everybody; who still lives sees its channel end."""
        for worker in list(self.workers.values()):
            self._forget_worker(worker)
        for zygote in list(self.zygotes.values()):
            self._forget_zygote(zygote)
        self.board.close()

    # ── zygotes ──────────────────────────────────────────────────────────────────────────────

    def spawn_zygote(self, boot: msg.Boot, fds: Sequence[int]) -> None:
        """Start the zygote that `boot` describes; `fds` follow the board's in the message."""
        environ = {name: value for name, value in os.environ.items() if name not in unix.PLUMBING}
        try:
            zygote = handles.spawn_zygote(boot.generation, environ)
        except OSError as error:
            how = f"could not be started ({error.strerror})"
            self._loop.call_soon(self._on_event, ev.ZygoteGone(boot.generation, how))
            return
        try:
            zygote.channel.send(boot, [self.board.fd, *fds])
        except OSError as error:  # no descriptor is left for the copies
            text = "zygote of generation %d is ended: its settings cannot be sent (%s)"
            log.error(text, boot.generation, error.strerror)  # noqa: TRY400
            zygote.kill()
        self._keep_zygote(zygote)

    def _keep_zygote(self, zygote: ZygoteHandle) -> None:
        self.zygotes[zygote.generation] = zygote
        self._loop.add_reader(zygote.channel.fileno(), self._on_zygote_message, zygote)
        zygote.channel.flush_by(self._loop)
        if zygote.pidfd is not None:
            self._loop.add_reader(zygote.pidfd, self._on_zygote_dead, zygote)

    def tell_zygote(self, generation: int, message: msg.Message, fds: Sequence[int] = ()) -> None:
        """Send, if there is such a zygote."""
        zygote = self.zygotes.get(generation)
        if zygote is not None:
            zygote.channel.send(message, fds)

    def kill_zygote(self, generation: int) -> None:
        """SIGKILL, if there is such a zygote."""
        if (zygote := self.zygotes.get(generation)) is not None:
            zygote.kill()

    def _on_zygote_message(self, zygote: ZygoteHandle) -> None:
        self._hear(zygote, self._on_zygote_says)
        if zygote.channel.eof:
            self._loop.remove_reader(zygote.channel.fileno())
            if zygote.pidfd is None:  # EOF is all the notice there is; the process ends in a moment
                self._loop.call_later(EOF_PATIENCE, self._on_zygote_dead, zygote)

    def _on_zygote_says(self, zygote: ZygoteHandle, message: msg.FromZygote, fds: list[int]) -> None:
        generation = zygote.generation
        match message:
            case msg.MoreFiles():
                zygote.know(message.files)
            case msg.Loaded():
                zygote.know(message.fingerprint)
                interface = clean(message.interface, border.LONGEST_WORD)
                lazy = "each worker loads the app" if message.lazy else f"{interface} app loaded"
                log.info("zygote of generation %d is up after %.2f s: %s", generation, message.seconds, lazy)
                self._on_files(generation, zygote.files)
                self._on_event(ev.ZygoteUp(generation))
            case msg.Unforkable():
                self._on_event(ev.ZygoteUnforkable(generation))
            case msg.LoadFailed():
                reason, detail = clean(message.reason), clean(message.detail, msg.LONGEST_TEXT)
                self._on_event(ev.ZygoteFailed(generation, message.exit_code, reason, detail))
            case msg.Forked():
                self._on_forked(zygote, message, fds)
            case msg.ForkFailed():
                self._forget_worker(border.ordered(message, zygote, self.workers.get(message.serial)))
                message.reason = clean(message.reason, border.LONGEST_WORD)
                self._on_event(message)
            case msg.Exited():
                self._on_exited(zygote, message)
            case _:
                assert_never(message)

    def _on_zygote_dead(self, zygote: ZygoteHandle) -> None:
        if self.zygotes.get(zygote.generation) is not zygote:
            return
        if zygote.pidfd is not None:
            self._loop.remove_reader(zygote.pidfd)
        self._hear(zygote, self._on_zygote_says, LAST_TURNS)
        status = zygote.reap()
        self._forget_zygote(zygote)
        for worker in [w for w in self.workers.values() if w.generation == zygote.generation]:
            if worker.pid is None:
                self._forget_worker(worker)
            elif worker.dead or (worker.channel is not None and worker.channel.eof and worker.pidfd is None):
                self._bury(worker)  # its status will not be reported any more
        code, signum = handles.decode_status(status)
        how = explain_exit(code, signum, Intent.NONE, out_of_memory=self._memory_ran_out())
        if zygote.broken and signum == "SIGKILL":
            how = f"broke the protocol and was killed ({zygote.broken})"
        self._on_event(ev.ZygoteGone(zygote.generation, how))

    def _forget_zygote(self, zygote: ZygoteHandle) -> None:
        self._unwatch(zygote.channel.fileno(), zygote.pidfd)
        self.zygotes.pop(zygote.generation, None)
        zygote.close()

    def adopt_workers(self, generation: int) -> None:
        """Make a zygote the deputy of everybody who lives."""
        for worker in self.workers.values():
            if worker.pid is not None and worker.pidfd is not None and not worker.dead:
                self.tell_zygote(generation, msg.Adopt(worker.serial, worker.pid), [worker.pidfd])

    # ── workers ──────────────────────────────────────────────────────────────────────────────

    def fork(self, command: ev.Fork) -> None:
        """Order a worker of its zygote."""
        worker = WorkerHandle(command.serial, command.generation, command.slot, self._free_cells.pop())
        self.board.clear(worker.cell)
        self.workers[worker.serial] = worker
        order = msg.Fork(
            command.serial, command.slot, worker.cell, command.recycle_after_requests, command.recycle_after_seconds
        )
        if (zygote := self.zygotes.get(command.generation)) is not None:
            zygote.may_say += border.PER_FORK
            zygote.channel.send(order)

    def _on_forked(self, zygote: ZygoteHandle, message: msg.Forked, fds: list[int]) -> None:
        worker = self.workers.get(message.serial)
        # A worker whose status is known has been reaped: its pid may be reused before its pidfd is seen to be readable.
        reaped = {each.pid for each in self.workers.values() if each.status is not None}
        border.believe_forked(message, fds, zygote, worker, set(self.pids) - reaped)
        assert worker is not None
        self._watch_worker(worker)
        self._on_event(message)

    def _watch_worker(self, worker: WorkerHandle) -> None:
        if worker.channel is not None:
            self._loop.add_reader(worker.channel.fileno(), self._on_worker_message, worker)
            worker.channel.flush_by(self._loop)
        if worker.pidfd is not None:
            self._loop.add_reader(worker.pidfd, self._on_worker_dead, worker)

    def _on_worker_message(self, worker: WorkerHandle) -> None:
        if worker.channel is None:
            return
        self._hear(worker, self._on_worker_says)
        if worker.channel.eof:  # no death notice: a grandchild may hold the other end (docs/traps.md, 27)
            self._loop.remove_reader(worker.channel.fileno())
            if worker.pidfd is None and worker.generation not in self.zygotes:  # but here there is no other
                self._loop.call_soon(self._bury, worker)

    def _on_worker_says(self, worker: WorkerHandle, message: msg.FromWorker, _fds: list[int]) -> None:
        if not isinstance(message, msg.MoreFiles) and message.serial != worker.serial:
            raise ChannelError(f"{type(message).__name__} about serial {message.serial}, but it is {worker.serial}")
        match message:
            case msg.MoreFiles():
                worker.know(message.files)
            case msg.Ready():
                worker.know(message.fingerprint)
                self._on_files(worker.generation, worker.files)
                self._on_event(message)
            case msg.BootFailed():
                message.reason, message.detail = clean(message.reason), clean(message.detail, msg.LONGEST_TEXT)
                self._on_event(message)
            case msg.RecycleAsked():
                message.reason = clean(message.reason)
                self._on_event(message)
            case _:
                assert_never(message)

    def _on_exited(self, zygote: ZygoteHandle, message: msg.Exited) -> None:
        worker = self.workers.get(message.serial)
        if worker is None or not border.check_exited(message, zygote, worker):
            return
        worker.status = message.status
        if worker.dead or worker.pidfd is None:
            self._bury(worker)

    def _on_worker_dead(self, worker: WorkerHandle) -> None:
        assert worker.pidfd is not None
        self._loop.remove_reader(worker.pidfd)
        worker.dead = True
        if worker.status is None:
            worker.status = unix.wait_pidfd(worker.pidfd)  # ours if its zygote died before it
        if worker.status is not None:
            self._bury(worker)
        else:
            self._loop.call_later(STATUS_PATIENCE, self._bury, worker)

    def _bury(self, worker: WorkerHandle) -> None:
        """The process is gone and its status known, or given up on: hear its last words, then tell the state."""
        if self.workers.get(worker.serial) is not worker:
            return
        if worker.channel is not None:
            self._hear(worker, self._on_worker_says, LAST_TURNS)
        self._log_trace(worker, f"the stacks at its end{self._owner(worker)}")
        self._forget_worker(worker)
        code, signum = handles.decode_status(worker.status)
        self._on_event(ev.Died(worker.serial, code, signum, self._memory_ran_out()))

    def _forget_worker(self, worker: WorkerHandle) -> None:
        self.workers.pop(worker.serial, None)
        self._unwatch(worker.channel.fileno() if worker.channel else None, worker.pidfd)
        worker.close()
        self.board.clear(worker.cell)
        self._free_cells.append(worker.cell)

    def tell(self, serial: int, message: msg.Message, fds: Sequence[int] = ()) -> None:
        """Send, if there is such a worker."""
        worker = self.workers.get(serial)
        if worker is not None and worker.channel is not None:
            worker.channel.send(message, fds)

    def signal(self, serial: int, signum: signal.Signals) -> None:
        """Signal that very process, never whoever has its pid by now."""
        worker = self.workers.get(serial)
        if worker is None or worker.dead:
            return
        if worker.pidfd is not None:
            unix.send_signal(worker.pidfd, signum)
        elif (zygote := self.zygotes.get(worker.generation)) is not None:
            zygote.channel.send(msg.Kill(serial, signum))

    def dump_stacks(self, command: ev.DumpStacks) -> None:
        """Have a worker's stacks written, and log them."""
        self.signal(command.serial, signal.SIGUSR2)
        worker = self.workers.get(command.serial)
        if worker is not None:
            title = f"its event loop has stood still for {command.silent:.1f} s{self._owner(worker)}, the stacks"
            self._loop.call_later(DUMP_PATIENCE, self._log_trace, worker, title)

    def _owner(self, worker: WorkerHandle) -> str:
        """The request that a stack most likely belongs to: a handler that blocks does so in its first step."""
        begun = self.board.read_text(worker.cell)
        return f" (the request begun last: {begun})" if begun else ""

    def _log_trace(self, worker: WorkerHandle, title: str) -> None:
        if worker.trace is None or self.workers.get(worker.serial) is not worker:
            return
        text, worker.trace_offset = read_trace(worker.trace, worker.trace_offset)
        if text:
            log.error("%s: %s:\n%s", worker, title, text)

    def _memory_ran_out(self) -> bool:
        before, self._oom_kills = self._oom_kills, unix.oom_kills()
        return self._oom_kills > before

    # ── channels ─────────────────────────────────────────────────────────────────────────────

    def _hear(self, peer: P, obey: Callable[[P, Any, list[int]], None], turns: int = 1) -> None:
        """Take in what a process has said, so many turns' share at most; cut it off if that breaks the protocol."""
        assert peer.channel is not None
        left: deque[tuple[Any, list[int]]] = deque()
        try:
            for _ in range(turns):
                left.extend(peer.channel.receive())
                if not left:
                    break
                while left:
                    border.count(peer)
                    obey(peer, *left[0])
                    left.popleft()
        except ChannelError as error:
            for _, fds in left:
                for fd in fds:
                    os.close(fd)
            self.cut_off(peer, clean(str(error)))  # msgspec quotes what it does not know

    def cut_off(self, peer: ZygoteHandle | WorkerHandle, reason: str) -> None:
        """Hear a peer no more: a zygote is killed, and another follows; a worker is replaced and told to leave."""
        assert peer.channel is not None
        self._loop.remove_reader(peer.channel.fileno())
        peer.channel.cut_off()
        if isinstance(peer, WorkerHandle):
            self._on_event(ev.Breached(peer.serial, reason))
        else:
            log.error("%s broke the protocol: %s; it is killed, the workers that it has forked serve on", peer, reason)
            peer.broken = reason
            peer.kill()

    def _unwatch(self, *fds: int | None) -> None:
        for fd in fds:
            if fd is not None and fd >= 0:
                self._loop.remove_reader(fd)
