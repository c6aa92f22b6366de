"""The processes below the master: the zygotes, their channels and pidfds, and through them the workers.

Runs in the master's loop. Messages and deaths of zygotes become events for the state machine; orders are passed on to
them. It decides nothing. `workers` does the same for the workers.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import assert_never

from aserver.ipc import messages as msg
from aserver.ipc.board import BoardFile
from aserver.log.crash import read_trace
from aserver.master import border, handles
from aserver.master.border import clean
from aserver.master.core import events as ev
from aserver.master.core.explain import explain_exit
from aserver.master.core.model import Intent
from aserver.master.handles import WorkerHandle, ZygoteHandle
from aserver.master.output import Output
from aserver.master.resources import Resources
from aserver.master.snapshot import Snapshot
from aserver.master.workers import Workers

log = logging.getLogger("aserver.master")

#: Without pidfds: seconds between the end of a zygote's channel and asking for its exit status.
EOF_PATIENCE = 0.1


class Processes:
    """`on_event` is called for each event of the processes; `resources` are those of each generation."""

    def __init__(
        self,
        on_event: Callable[[ev.Event], None],
        board: BoardFile | None = None,
        resources: Mapping[int, Resources] = MappingProxyType({}),
    ) -> None:
        self.zygotes: dict[int, ZygoteHandle] = {}
        self.companions: set[int] = set()  # pids of children that neither load the application nor serve it
        self.board = board or BoardFile.create()
        self.output = Output(resources, self.board.fd)
        self.workers = Workers(self.zygotes, self.board, on_event, self.output)
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()

    @property
    def pids(self) -> list[int]:
        """The pids of the processes whose exit status is waited for."""
        workers = (w.pid for w in self.workers.all.values() if w.pid is not None)
        return [*(zygote.pid for zygote in self.zygotes.values()), *workers, *self.companions, *self.output.pids]

    @property
    def quiet(self) -> bool:
        """Whether no message is half sent or half received, and each zygote that broke the protocol has ended."""
        return not self._halves() and not any(zygote.broken for zygote in self.zygotes.values())

    def _halves(self) -> list[ZygoteHandle | WorkerHandle]:
        peers: list[ZygoteHandle | WorkerHandle] = [*self.zygotes.values(), *self.workers.all.values()]
        return [peer for peer in peers if peer.channel and not peer.channel.eof and not peer.channel.quiet]

    def cut_off_halves(self, reason: str) -> None:
        """Cut off, for `reason`, each peer of whose messages only a half is sent or received."""
        for peer in self._halves():
            if isinstance(peer, WorkerHandle):
                self.workers.cut_off(peer, reason)
            else:
                self._cut_off(peer, reason)

    def inherit(self, snapshot: Snapshot) -> None:
        """Take over the processes of this master's former image."""
        for zygote in snapshot.zygotes:
            self.keep(ZygoteHandle.restored(zygote))
        for worker in snapshot.workers:
            self.workers.inherit(worker)
        self.output.inherit(snapshot.outputs)

    def reopen_logs(self, fds: Callable[[int], list[int]]) -> None:
        """Hand every process the log files, `fds` by generation, that were opened again."""
        for generation in self.zygotes:
            self.tell(generation, msg.Reopen(), fds(generation))
        for worker in self.workers.all.values():
            self.workers.tell(worker.serial, msg.Reopen(), fds(worker.generation))
        self.output.exchange()

    def close(self) -> None:
        """Close all; a process that still lives sees its channel end."""
        self.workers.close()
        for zygote in list(self.zygotes.values()):
            self._forget(zygote)
        self.output.close()
        self.board.close()

    # ── zygotes ──────────────────────────────────────────────────────────────────────────────

    def spawn(self, boot: msg.Boot, fds: Sequence[int]) -> None:
        """Start the zygote that `boot` describes; `fds` follow the board's in the message."""
        try:
            zygote = handles.spawn_zygote(boot.generation)
        except OSError as error:
            how = f"could not be started ({error.strerror})"
            self._loop.call_soon(self._on_event, ev.ZygoteGone(boot.generation, how))
            return
        try:
            with self.output.writing_ends(boot.generation, 0, f"zygote g{boot.generation}") as ends:
                zygote.channel.send(boot, [self.board.fd, zygote.trace, *ends, *fds])
        except OSError as error:  # no descriptor is left for the copies
            text = "zygote of generation %d is ended: its settings cannot be sent (%s)"
            log.error(text, boot.generation, error.strerror)  # noqa: TRY400
            zygote.kill()
        self.output.born(boot.generation, 0, zygote.pid)
        self.keep(zygote)

    def keep(self, zygote: ZygoteHandle) -> None:
        """Take in a zygote: its messages are read, and its end is waited for."""
        self.zygotes[zygote.generation] = zygote
        zygote.watch(self._on_message, self._on_dead)

    def tell(self, generation: int, message: msg.Message, fds: Sequence[int] = ()) -> None:
        """Send a message to the zygote of `generation`, if there is one."""
        if (zygote := self.zygotes.get(generation)) is not None:
            zygote.channel.send(message, fds)

    def kill(self, generation: int, signum: signal.Signals) -> None:
        """End the zygote of `generation`, if there is one."""
        if (zygote := self.zygotes.get(generation)) is not None:
            zygote.kill(signum)

    def adopt_workers(self, generation: int) -> None:
        """Make a zygote the deputy of all living workers: it ends them should the master die."""
        for worker in self.workers.all.values():
            if worker.pid is not None and worker.pidfd is not None and not worker.dead:
                self.tell(generation, msg.Adopt(worker.serial, worker.pid), [worker.pidfd])

    def _on_message(self, zygote: ZygoteHandle) -> None:
        self._hear(zygote)
        if zygote.channel.eof:
            self._loop.remove_reader(zygote.channel.fileno())
            if zygote.pidfd is None:  # EOF is all the notice there is; the process ends in a moment
                self._loop.call_later(EOF_PATIENCE, self._on_dead, zygote)

    def _hear(self, zygote: ZygoteHandle, turns: int = 1) -> None:
        if broken := border.hear(zygote, self._on_says, turns):
            self._cut_off(zygote, broken)

    def _on_says(self, zygote: ZygoteHandle, message: msg.FromZygote, fds: list[int]) -> None:
        border.check_generation(message, zygote)
        match message:
            case msg.MoreFiles():
                zygote.know(message.files)
            case msg.Loaded():
                zygote.know(message.fingerprint)
                message.fingerprint = zygote.files
                message.interface = clean(message.interface, border.LONGEST_WORD)
                self._on_event(message)
            case msg.Unforkable():
                self._on_event(message)
            case msg.LoadFailed():
                message.reason, message.detail = clean(message.reason), clean(message.detail, msg.LONGEST_TEXT)
                self._on_event(message)
            case msg.Forked():
                self.workers.forked(zygote, message, fds, {each.pid for each in self.zygotes.values()})
            case msg.ForkFailed():
                self.workers.fork_failed(zygote, message)
            case msg.Exited():
                self.workers.exited(zygote, message)
            case _:
                assert_never(message)

    def _cut_off(self, zygote: ZygoteHandle, reason: str) -> None:
        """Read no more messages of a zygote, and kill it; another follows."""
        self._loop.remove_reader(zygote.channel.fileno())
        zygote.channel.cut_off()
        log.error("%s broke the protocol: %s; it is killed, the workers that it has forked serve on", zygote, reason)
        zygote.broken = reason
        zygote.kill()

    def _on_dead(self, zygote: ZygoteHandle) -> None:
        if self.zygotes.get(zygote.generation) is not zygote:
            return
        if zygote.pidfd is not None:
            self._loop.remove_reader(zygote.pidfd)
        self._hear(zygote, border.LAST_TURNS)
        status = zygote.reap()
        stacks = read_trace(zygote.trace).text
        self._forget(zygote)
        self.workers.orphaned(zygote.generation)
        code, signum = handles.decode_status(status)
        how = explain_exit(code, signum, Intent.NONE, out_of_memory=self.workers.memory.why(signum))
        if zygote.broken and signum == "SIGKILL":
            how = f"broke the protocol and was killed ({zygote.broken})"
        detail = f"the stacks at its end:\n{stacks}" if stacks else ""
        self._on_event(ev.ZygoteGone(zygote.generation, how, detail))

    def _forget(self, zygote: ZygoteHandle) -> None:
        zygote.unwatch()
        self.zygotes.pop(zygote.generation, None)
        zygote.close()
