"""The master's shell: turns the system's news into events, performs the state machine's commands, re-arms one timer.

Runs in the master process's stdlib loop, or in the loop of a program that embeds a whole master. It never waits for a
worker or zygote (it waits for the next event or deadline), never imports user code, and never forks.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import assert_never

from aserver import unix
from aserver.config import Resolved
from aserver.errors import AserverError, BindError, ChannelError
from aserver.ipc import messages as msg
from aserver.ipc.board import CELLS, Board, Field
from aserver.ipc.channel import Channel
from aserver.log.crash import read_trace
from aserver.log.setup import Logging, configure
from aserver.master import children, policy
from aserver.master import events as ev
from aserver.master.children import WorkerHandle, ZygoteHandle
from aserver.master.freshness import Fingerprint, Freshness
from aserver.master.provision import Provision, let_go, provide_next
from aserver.master.state import BEAT_PERIOD, Master
from aserver.sockets import Listener

log = logging.getLogger("aserver.master")

#: Seconds that the zygote's report of an exit status may lag behind the pidfd before the death is taken without it.
STATUS_PATIENCE = 0.5
#: Seconds between two looks at socket paths and at orphans of user code.
CHORES_PERIOD = 1.0
#: Chores between two looks at the files of the loaded code (one stat(2) each).
FRESHNESS_CHORES = 5
#: Seconds that faulthandler gets to write its stacks before they are read; it took under 10 ms (PROCESS 5).
DUMP_PATIENCE = 0.05


class Runner:
    """One server: listeners in, exit out. Everything it opens it closes, also when it fails."""

    def __init__(
        self,
        provision: Provision,
        *,
        logs: Logging | None,
        reread: Callable[[], Resolved],
    ) -> None:
        """`provision` is closed at the end. `reread` reads the settings again for a reload; it raises ConfigError.

        `logs` are this process's own, or None in a process that is not ours: then it is neither made the net under
        orphans nor told where to log.
        """
        self._logs = logs
        self._reread = reread
        self._next = provision
        self._provisions: dict[int, Provision] = {}
        self._files: dict[int, Freshness] = {}
        self._chores = 0
        self._serving = 0  # the generation whose listeners are listening
        config = provision.config
        self._state = Master(policy.Limits.of(config, provision.workers), random.random, lazy=not config.preload)
        self._board = Board.create()
        self._free_cells = list(range(CELLS - 1, 0, -1))
        self._zygotes: dict[int, ZygoteHandle] = {}
        self._workers: dict[int, WorkerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[ev.Exit] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._periodic: list[asyncio.TimerHandle] = []
        self._listening = asyncio.Event()
        self._oom_kills = unix.oom_kills()

    # ── life ─────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> ev.Exit:
        """Serve until stopped; cancelling it is a graceful stop that is waited for."""
        if self._logs is not None:
            unix.become_subreaper()
        self._every(BEAT_PERIOD, self._look_at_beats)
        self._every(CHORES_PERIOD, self._do_chores)
        self._handle(ev.Started())
        try:
            return await asyncio.shield(self._done)
        except asyncio.CancelledError:
            self.stop(ev.StopMode.GRACEFUL, "cancelled")
            while not self._done.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(self._done)
            raise
        finally:
            self._close()

    async def listening(self) -> None:
        """Wait until the first worker is ready and the listeners accept."""
        await self._listening.wait()

    def stop(self, mode: ev.StopMode, why: str) -> None:
        """Ask for the end; asked again, it is quicker."""
        self._handle(ev.StopRequested(mode, why))

    def reload(self, why: str) -> None:
        """Read the settings again and start a new generation; what is wrong is logged and changes nothing."""
        newest = max(self._provisions)
        try:
            fresh, remarks = provide_next(self._provisions[newest], self._reread())
        except AserverError as error:
            log.error("reload (%s) refused, everything stays as it is: %s", why, error)  # noqa: TRY400
            return
        for remark in remarks:
            log.warning("reload (%s): %s", why, remark)
        superseded, self._next = self._next, fresh
        if superseded not in self._provisions.values():
            let_go(superseded, (*self._provisions.values(), fresh))
        self._handle(ev.ReloadRequested(policy.Limits.of(fresh.config, fresh.workers), why))

    def scale(self, *, delta: int = 0, to: int | None = None) -> None:
        """Change the number of workers."""
        before = self._state.target
        self._handle(ev.Scale(delta, to))
        if self._state.target != before:
            self._run_hook("nworkers_changed", self._state.target, before)

    def reopen_logs(self) -> None:
        """Open the log files again and hand them to every process, for rotation (SIGUSR1)."""
        for logfile in {id(f): f for provision in self._provisions.values() for f in provision.logs}.values():
            try:
                logfile.reopen()
            except AserverError as error:
                log.error("%s; the old file is written on", error)  # noqa: TRY400
        current = self._provisions[max(self._provisions)]
        if self._logs is not None:
            self._logs.replace(os.dup(current.log_fds[0]), None)
        children: list[ZygoteHandle | WorkerHandle] = [*self._zygotes.values(), *self._workers.values()]
        for child in children:
            if child.channel is not None and not child.channel.eof:
                child.channel.send(msg.Reopen(), self._provisions[child.generation].log_fds)
        log.info("logs reopened")

    def _run_hook(self, name: str, *numbers: int) -> None:
        current = self._state.current
        zygote = self._zygotes.get(current.number) if current else None
        if zygote is not None:
            zygote.channel.send(msg.RunHook(name, numbers))

    def close_logs(self) -> None:
        """Write what is left and let go: the last thing that a master of its own does."""
        if self._logs is not None:
            self._logs.close()

    def _close(self) -> None:
        for timer in (self._timer, *self._periodic):
            if timer is not None:
                timer.cancel()
        for worker in list(self._workers.values()):
            self._forget_worker(worker)
        for zygote in list(self._zygotes.values()):
            self._forget_zygote(zygote)
        self._board.close()
        for generation in list(self._provisions):
            let_go(self._provisions.pop(generation), (*self._provisions.values(), self._next))
        let_go(self._next, ())

    # ── events in, commands out ──────────────────────────────────────────────────────────────

    def _handle(self, event: ev.Event) -> None:
        if self._done.done():
            return
        for command in self._state.handle(event, time.monotonic()):
            self._perform(command)
        self._follow_generations()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._state.next_deadline()
        if deadline is not None and not self._done.done():
            self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._handle, ev.Tick())

    def _perform(self, command: ev.Command) -> None:  # noqa: C901, PLR0912  (a table of one line each)
        match command:
            case ev.SpawnZygote():
                self._spawn_zygote(command)
            case ev.QuitZygote():
                last = self._state.stop is not None and command.generation == max(self._zygotes)
                self._zygotes[command.generation].channel.send(msg.Quit(last))
            case ev.KillZygote():
                self._zygotes[command.generation].kill()
            case ev.AdoptWorkers():
                self._adopt_workers(command.generation)
            case ev.Fork():
                self._fork(command)
            case ev.Drain():
                self._tell(command.serial, msg.Drain(command.final, command.graceful))
            case ev.Hurry():
                self._tell(command.serial, msg.Drain(final=True, graceful=0.0))
            case ev.Kill():
                self._signal(command.serial, signal.Signals[command.signal])
            case ev.DumpStacks():
                self._dump_stacks(command)
            case ev.StartListening():
                self._start_listening(1)
            case ev.CloseListeners():
                for listener in self._listeners():
                    listener.close()
            case ev.Say():
                text = f"{command.text}\n{command.detail.rstrip()}" if command.detail else command.text
                log.log(logging.getLevelNamesMapping()[command.level.upper()], "%s", text)
            case ev.Notify():
                pass  # the service manager's protocol comes with operations
            case ev.Exit():
                self._done.set_result(command)
            case _:
                assert_never(command)

    def _every(self, period: float, chore: Callable[[], None]) -> None:
        index = len(self._periodic)

        def turn() -> None:
            self._periodic[index] = self._loop.call_later(period, turn)
            chore()

        self._periodic.append(self._loop.call_later(period, turn))

    def _look_at_beats(self) -> None:
        beats = {w.serial: self._board.cell(w.cell)[Field.BEAT] / 1e9 for w in self._workers.values()}
        self._handle(ev.Beats(beats))

    def _do_chores(self) -> None:
        for listener in self._listeners():
            if (news := listener.tend()) is not None:
                log.warning("%s", news)
        self._chores += 1
        if self._chores % FRESHNESS_CHORES == 0:
            self._look_at_files()
        if self._logs is not None:
            known = [z.pid for z in self._zygotes.values()] + [w.pid for w in self._workers.values() if w.pid]
            unix.reap_strangers(known)

    def _know_files(self, generation: int, files: Fingerprint) -> None:
        """The first that loads a generation's code says which files that is."""
        if files:
            self._files.setdefault(generation, Freshness(files))

    def _look_at_files(self) -> None:
        current = self._state.current
        files = self._files.get(current.number) if current else None
        if files is not None and current is not None and (news := files.news()):
            log.warning("%s (generation %d): a reload is due; until then the loaded code serves", news, current.number)

    def _listeners(self) -> list[Listener]:
        return list({id(li): li for provision in self._provisions.values() for li in provision.listeners}.values())

    def _start_listening(self, generation: int) -> None:
        provision = self._provisions[generation]
        known = self._provisions[self._serving].listeners if self._serving in self._provisions else []
        fresh = [listener for listener in provision.listeners if listener not in known]
        self._serving = generation
        try:
            for listener in fresh:
                listener.listen(provision.config.backlog)
        except BindError as error:
            # Two masters can both have bound before one of them listens (trap 56).
            if known:
                log.error("%s; the other listeners serve on", error)  # noqa: TRY400
                return
            self._state.result = ev.Exit(error.exit_code, str(error))
            self._loop.call_soon(self.stop, ev.StopMode.QUICK, "a listener is taken")
            return
        for listener in fresh:
            log.info("listening on %s", listener.name)
        if not self._listening.is_set():
            self._listening.set()
            self._run_hook("when_ready")

    def _follow_generations(self) -> None:
        """Take up what a generation brings when it becomes the current one; close what only gone ones used."""
        current = self._state.current
        if current is not None and current.number != self._serving and self._serving:
            self._start_listening(current.number)
            provision = self._provisions[current.number]
            if self._logs is not None:
                self._logs.close()
                fresh = configure(provision.config, process="master", error_fd=os.dup(provision.log_fds[0]))
                fresh.set_process("master", self._loop)
                self._logs = fresh
        for generation in [g for g in self._provisions if g not in self._state.generations]:
            gone = self._provisions.pop(generation)
            self._files.pop(generation, None)
            for listener in let_go(gone, (*self._provisions.values(), self._next)):
                log.info("%s is no longer listened on", listener.name)

    # ── zygotes ──────────────────────────────────────────────────────────────────────────────

    def _spawn_zygote(self, command: ev.SpawnZygote) -> None:
        generation = command.generation
        provision = self._provisions.setdefault(generation, self._next)
        environ = {name: value for name, value in os.environ.items() if name not in unix.PLUMBING}
        try:
            zygote = children.spawn_zygote(generation, environ)
        except OSError as error:
            how = f"could not be started ({error.strerror})"
            self._loop.call_soon(self._handle, ev.ZygoteGone(generation, how))
            return
        self._zygotes[generation] = zygote
        boot = msg.Boot(
            generation=generation,
            settings=provision.config.to_wire(),
            lazy=command.lazy,
            hooks=provision.hooks,
            master_pid=os.getpid(),
            listeners=tuple(msg.ListenerInfo(li.name, li.family, li.tls) for li in provision.listeners),
            access_log=len(provision.logs) > 1,
        )
        fds = [self._board.fd, *provision.log_fds, *(li.socket.fileno() for li in provision.listeners)]
        zygote.channel.send(boot, fds)
        self._watch_channel(zygote.channel, partial(self._on_zygote_message, zygote))
        if zygote.pidfd is not None:
            self._loop.add_reader(zygote.pidfd, self._on_zygote_dead, zygote)

    def _on_zygote_message(self, zygote: ZygoteHandle) -> None:
        for message, fds in self._read(zygote.channel, f"zygote of generation {zygote.generation}"):
            self._on_message(zygote, message, fds)
        if zygote.channel.eof:
            self._loop.remove_reader(zygote.channel.fileno())
            if zygote.pidfd is None:
                self._on_zygote_dead(zygote)

    def _on_message(self, zygote: ZygoteHandle, message: msg.ToMaster, fds: list[int]) -> None:
        generation = zygote.generation
        match message:
            case msg.Loaded():
                lazy = "each worker loads the app" if message.lazy else f"{message.interface} app loaded"
                log.info("zygote of generation %d is up after %.2f s: %s", generation, message.seconds, lazy)
                self._know_files(generation, message.fingerprint)
                self._handle(ev.ZygoteUp(generation))
            case msg.Unforkable():
                self._handle(ev.ZygoteUnforkable(generation))
            case msg.LoadFailed():
                self._handle(ev.ZygoteFailed(generation, message.exit_code, message.reason, message.detail))
            case msg.Forked():
                self._on_forked(message, fds)
            case msg.ForkFailed():
                if (worker := self._workers.get(message.serial)) is not None:
                    self._forget_worker(worker)
                self._handle(ev.ForkFailed(message.serial, message.reason))
            case msg.Exited():
                self._on_exited(message)
            case msg.Ready() | msg.BootFailed() | msg.RetireAsked():
                raise ChannelError(f"{type(message).__name__} is a worker's message, but it came from a zygote")
            case _:
                assert_never(message)

    def _on_zygote_dead(self, zygote: ZygoteHandle) -> None:
        if zygote.pidfd is not None:
            self._loop.remove_reader(zygote.pidfd)
        self._on_zygote_message(zygote)  # what it said last
        status = zygote.reap()
        if self._zygotes.get(zygote.generation) is not zygote:
            return
        self._forget_zygote(zygote)
        for worker in [w for w in self._workers.values() if w.generation == zygote.generation]:
            if worker.pid is None:
                self._forget_worker(worker)
            elif worker.dead:
                self._bury(worker)  # its status will not be reported any more
        code, signum = children.decode_status(status)
        how = policy.explain_exit(code, signum, policy.Intent.NONE, out_of_memory=self._memory_ran_out())
        self._handle(ev.ZygoteGone(zygote.generation, how))

    def _forget_zygote(self, zygote: ZygoteHandle) -> None:
        self._unwatch(zygote.channel.fileno(), zygote.pidfd)
        self._zygotes.pop(zygote.generation, None)
        zygote.close()

    def _adopt_workers(self, generation: int) -> None:
        for worker in self._workers.values():
            if worker.pid is not None and worker.pidfd is not None and not worker.dead:
                self._zygotes[generation].channel.send(msg.Adopt(worker.serial, worker.pid), [worker.pidfd])

    # ── workers ──────────────────────────────────────────────────────────────────────────────

    def _fork(self, command: ev.Fork) -> None:
        worker = WorkerHandle(command.serial, command.generation, command.slot, self._free_cells.pop())
        self._board.clear(worker.cell)
        self._workers[worker.serial] = worker
        order = msg.Fork(
            command.serial, command.slot, worker.cell, command.retire_after_requests, command.retire_after_seconds
        )
        self._zygotes[command.generation].channel.send(order)

    def _on_forked(self, message: msg.Forked, fds: list[int]) -> None:
        worker = self._workers.get(message.serial)
        if worker is None or worker.pid is not None:
            for fd in fds:  # given up already: closing its channel is what tells it to leave
                os.close(fd)
            return
        worker.pid, worker.trace = message.pid, fds[1]
        worker.pidfd = fds[2] if len(fds) > 2 else None
        worker.channel = Channel(socket.socket(fileno=fds[0]), msg.ToMaster)
        self._watch_channel(worker.channel, partial(self._on_worker_message, worker))
        if worker.pidfd is not None:
            self._loop.add_reader(worker.pidfd, self._on_worker_dead, worker)
        self._handle(ev.Forked(worker.serial, worker.pid))

    def _on_worker_message(self, worker: WorkerHandle) -> None:
        if worker.channel is None:
            return
        for message, _ in self._read(worker.channel, f"worker {worker.slot} (pid {worker.pid})"):
            match message:
                case msg.Ready():
                    self._know_files(worker.generation, message.fingerprint)
                    self._handle(ev.Ready(worker.serial))
                case msg.BootFailed():
                    self._handle(ev.BootFailed(worker.serial, message.exit_code, message.reason, message.detail))
                case msg.RetireAsked():
                    self._handle(ev.RetireAsked(worker.serial, message.reason))
                case _:
                    raise ChannelError(f"{type(message).__name__} is no worker's message")
        if worker.channel.eof:  # no death notice: a grandchild may hold the other end, or none (trap 27)
            self._loop.remove_reader(worker.channel.fileno())

    def _on_exited(self, message: msg.Exited) -> None:
        worker = self._workers.get(message.serial)
        if worker is None:
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
        if self._workers.get(worker.serial) is not worker:
            return
        self._on_worker_message(worker)
        self._log_trace(worker, "the stacks at its end")
        self._forget_worker(worker)
        code, signum = children.decode_status(worker.status)
        self._handle(ev.Died(worker.serial, code, signum, self._memory_ran_out()))

    def _forget_worker(self, worker: WorkerHandle) -> None:
        self._workers.pop(worker.serial, None)
        self._unwatch(worker.channel.fileno() if worker.channel else None, worker.pidfd)
        worker.close()
        self._board.clear(worker.cell)
        self._free_cells.append(worker.cell)

    def _tell(self, serial: int, message: msg.Message) -> None:
        worker = self._workers.get(serial)
        if worker is not None and worker.channel is not None:
            worker.channel.send(message)

    def _signal(self, serial: int, signum: signal.Signals) -> None:
        worker = self._workers.get(serial)
        if worker is None or worker.dead:
            return
        if worker.pidfd is not None:
            unix.send_signal(worker.pidfd, signum)
        elif (zygote := self._zygotes.get(worker.generation)) is not None:
            zygote.channel.send(msg.Kill(serial, signum))

    def _dump_stacks(self, command: ev.DumpStacks) -> None:
        self._signal(command.serial, signal.SIGUSR2)
        worker = self._workers.get(command.serial)
        if worker is not None:
            title = f"its event loop has stood still for {command.silent:.1f} s, the stacks"
            self._loop.call_later(DUMP_PATIENCE, self._log_trace, worker, title)

    def _log_trace(self, worker: WorkerHandle, title: str) -> None:
        if worker.trace is None or self._workers.get(worker.serial) is not worker:
            return
        text, worker.trace_offset = read_trace(worker.trace, worker.trace_offset)
        if text:
            name = f"worker {worker.slot} (generation {worker.generation}, pid {worker.pid})"
            log.error("%s: %s:\n%s", name, title, text)

    def _memory_ran_out(self) -> bool:
        before, self._oom_kills = self._oom_kills, unix.oom_kills()
        return self._oom_kills > before

    # ── channels ─────────────────────────────────────────────────────────────────────────────

    def _watch_channel(self, channel: Channel[msg.ToMaster], callback: Callable[[], None]) -> None:
        self._loop.add_reader(channel.fileno(), callback)

    def _read(self, channel: Channel[msg.ToMaster], who: str) -> list[tuple[msg.ToMaster, list[int]]]:
        try:
            return channel.receive()
        except ChannelError as error:
            log.error("%s breaks the protocol: %s", who, error)  # noqa: TRY400
            channel.eof = True
            return []

    def _unwatch(self, *fds: int | None) -> None:
        for fd in fds:
            if fd is not None and fd >= 0:
                self._loop.remove_reader(fd)
