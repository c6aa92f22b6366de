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
import time
from collections.abc import Callable
from typing import Self, assert_never

import anyio

from aserver import terminal, unix
from aserver.config import Resolved
from aserver.errors import AserverError, BindError, ConfigError
from aserver.ipc import messages as msg
from aserver.ipc.board import BoardFile
from aserver.log.opening import open_private
from aserver.log.setup import Logging
from aserver.master.code_watch import CodeWatch, Fingerprint
from aserver.master.core import events as ev
from aserver.master.core.limits import BEAT_PERIOD, Limits
from aserver.master.core.machine import Master
from aserver.master.core.model import ServerPhase
from aserver.master.pidfile import PidFile
from aserver.master.processes import Processes
from aserver.master.reload import read
from aserver.master.resources import Resources, all_logs, inherit, let_go, provide_next, save, save_logs
from aserver.master.snapshot import SCHEMA, Snapshot, read_model, write_model
from aserver.master.upgrade import become, preflight
from aserver.sockets import Listener, hand_over

log = logging.getLogger("aserver.master")

#: Seconds between two looks at socket paths and at orphans of user code.
CHORES_PERIOD = 1.0
#: Seconds that an upgrade waits for the rest of a message before it cuts its peer off, which may never send or take it.
MESSAGE_PATIENCE = 5.0
#: Chores between two looks at the files of the loaded code (one stat(2) each).
CODE_CHORES = 5


class Runner:
    """One server: listeners in, exit out. Everything it opens it closes, also when it fails."""

    def __init__(
        self,
        resources: Resources,
        *,
        logs: Logging | None,
        reread: Callable[[], Resolved],
        pidfile: PidFile | None = None,
        board: BoardFile | None = None,
    ) -> None:
        """`resources` is closed at the end. `reread` reads the settings again for a reload; it raises ConfigError.

        `logs` are this process's own, or None in a process that is not ours: then it is neither made the net under
        orphans nor told where to log. `pidfile` is removed at the end.
        """
        self._logs = logs
        self._reread = reread
        self._pidfile = pidfile
        self._next = resources
        self._resources: dict[int, Resources] = {}
        self._files: dict[int, CodeWatch] = {}
        #: Signals that have come and that the loop has not obeyed yet; an upgrade takes them along.
        self.noted: list[int] = []
        self._chores = 0
        self._serving = 0  # the generation whose listeners are listening
        self._listening_on: list[Listener] = []
        config = resources.config
        self._state = Master(Limits.of(config, resources.workers), random.random, lazy=not config.preload)
        self._processes = Processes(self._handle, self._know_files, board)
        if logs is not None:
            logs.share_half_lines(self._processes.board.fd)
        self._upgrade: asyncio.Task[None] | None = None
        self._reading: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[ev.Exit] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._periodic: list[asyncio.TimerHandle] = []
        self._listening = asyncio.Event()

    @classmethod
    def resumed(
        cls, snapshot: Snapshot, *, logs: Logging, reread: Callable[[], Resolved], pidfile: PidFile | None
    ) -> Self:
        """Go on where this process's former image stopped (SIGUSR2), then reload. Raises ConfigError."""
        resources = inherit(snapshot)
        runner = cls(
            resources[max(resources)], logs=logs, reread=reread, pidfile=pidfile, board=BoardFile(snapshot.board)
        )
        runner._resources = resources
        runner._serving = snapshot.serving
        runner._listening_on = resources[snapshot.serving].listeners
        runner._files = {generation: CodeWatch(files) for generation, files in snapshot.files.items()}
        runner._state = read_model(snapshot.model, random.random)
        runner._processes.inherit(snapshot)
        runner._listening.set()
        runner._loop.call_soon(runner.reload, "after the upgrade")
        return runner

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
            with anyio.CancelScope(shield=True):  # a scope goes on cancelling whoever waits in it: a busy loop here
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
        self._reading = [task for task in self._reading if not task.done()]
        self._reading.append(self._loop.create_task(self._do_reload(why)))

    async def _do_reload(self, why: str) -> None:
        if self._logs is not None:
            terminal.keep_standard_streams()  # HUP may be the terminal's last word, and the new generation inherits it
        try:
            resolved = await read(self._reread, self._next.config)
            fresh, remarks = provide_next(self._next, resolved)  # as it is now, whatever came while they were read
        except AserverError as error:
            log.error("reload (%s) refused, everything stays as it is: %s", why, error)  # noqa: TRY400
            return
        for remark in remarks:
            log.warning("reload (%s): %s", why, remark)
        superseded, self._next = self._next, fresh
        if superseded not in self._resources.values():
            let_go(superseded, (*self._resources.values(), fresh))
        self._state.lazy = not fresh.config.preload  # for the generation that is about to begin
        self._handle(ev.ReloadRequested(Limits.of(fresh.config, fresh.workers), why))

    def upgrade(self, why: str) -> None:
        """Become a new image of this program, if a preflight says that it would work."""
        if self._upgrade is not None and not self._upgrade.done():
            log.warning("upgrade (%s) refused: one is under way", why)
        elif self._logs is None:
            log.warning("upgrade (%s) refused: this process is not aserver's own", why)
        else:
            self._upgrade = self._loop.create_task(self._do_upgrade(why))

    async def _do_upgrade(self, why: str) -> None:
        log.info("upgrade (%s): preflight", why)
        if (reason := await preflight(self._next.config)) is not None:
            log.error("upgrade (%s) refused, everything stays as it is: %s", why, reason)
            return
        self._run_hook("pre_exec")
        patience = self._loop.time() + MESSAGE_PATIENCE
        while not self._processes.quiet or any(not task.done() for task in self._reading):
            if self._loop.time() > patience:
                self._processes.cut_off_halves(
                    f"half a message for {MESSAGE_PATIENCE:g} s, and an upgrade waits for it"
                )
            await asyncio.sleep(BEAT_PERIOD)
        if self._state.over or self._state.server is not ServerPhase.SERVING:
            log.warning("upgrade (%s) given up: the server is %s", why, self._state.server.value)
            return
        log.info("upgrade (%s): the master re-executes itself", why)
        error = become(self._snapshot(), self.noted)
        log.error("upgrade (%s) failed, everything stays as it is: %s", why, error.strerror)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            schema=SCHEMA,
            model=write_model(self._state),
            board=self._processes.board.fd,
            zygotes=self._processes.saved_zygotes(),
            workers=self._processes.saved_workers(),
            listeners=[hand_over(listener) for listener in self._listeners()],
            logs=save_logs(self._resources.values()),
            resources={generation: save(each) for generation, each in self._resources.items()},
            files={generation: dict(each.files) for generation, each in self._files.items()},
            serving=self._serving,
            pidfile=self._pidfile.fd if self._pidfile else None,
            pidfile_lock=self._pidfile.lock.fd if self._pidfile and self._pidfile.lock else None,
        )

    def scale(self, *, delta: int = 0, to: int | None = None) -> None:
        """Change the number of workers."""
        before = self._state.target
        self._handle(ev.Scale(delta, to))
        if self._state.target != before:
            self._run_hook("nworkers_changed", self._state.target, before)

    def reopen_logs(self) -> None:
        """Open the log files again and hand them to every process, for rotation (SIGUSR1)."""
        for logfile in all_logs(self._resources.values()):
            try:
                logfile.reopen()
            except AserverError as error:
                log.error("%s; the old file is written on", error)  # noqa: TRY400
        current = self._resources[max(self._resources)]
        if self._logs is not None:
            self._logs.replace(open_private(current.log_fds[0]), None)
        for generation in self._processes.zygotes:
            self._processes.tell_zygote(generation, msg.Reopen(), self._resources[generation].log_fds)
        for worker in self._processes.workers.values():
            self._processes.tell(worker.serial, msg.Reopen(), self._resources[worker.generation].log_fds)
        log.info("logs reopened")

    def _run_hook(self, name: str, *numbers: int) -> None:
        current = self._state.current
        if current is not None:
            self._processes.tell_zygote(current.number, msg.RunHook(name, numbers))

    @property
    def errorlog(self) -> str:
        """Where this master logs."""
        return self._next.config.errorlog

    def close_logs(self) -> None:
        """Write what is left and let go: the last thing that a master of its own does."""
        if self._logs is not None:
            self._logs.close()

    def _close(self) -> None:
        for timer in (self._timer, *self._periodic):
            if timer is not None:
                timer.cancel()
        self._processes.close()
        for generation in list(self._resources):
            let_go(self._resources.pop(generation), (*self._resources.values(), self._next))
        let_go(self._next, ())
        if self._pidfile is not None:
            self._pidfile.remove()

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
                last = self._state.stop is not None and command.generation == max(self._processes.zygotes, default=0)
                self._processes.tell_zygote(command.generation, msg.Quit(last))
            case ev.KillZygote():
                self._processes.kill_zygote(command.generation)
            case ev.AdoptWorkers():
                self._processes.adopt_workers(command.generation)
            case ev.Fork():
                self._processes.fork(command)
            case ev.Drain():
                self._processes.tell(command.serial, msg.Drain(command.final, command.graceful))
            case ev.Hurry():
                self._processes.tell(command.serial, msg.Drain(final=True, graceful=0.0))
            case ev.Finish():
                self._processes.tell(command.serial, msg.Drain(final=True, graceful=command.graceful))
            case ev.Kill():
                self._processes.signal(command.serial, signal.Signals[command.signal])
            case ev.DumpStacks():
                self._processes.dump_stacks(command)
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

    def _spawn_zygote(self, command: ev.SpawnZygote) -> None:
        resources = self._resources.setdefault(command.generation, self._next)
        boot = msg.Boot(
            generation=command.generation,
            settings=resources.config.to_wire(),
            lazy=command.lazy,
            hooks=resources.hooks,
            master_pid=os.getpid(),
            listeners=tuple(msg.ListenerInfo(li.name, li.family, li.tls) for li in resources.listeners),
            access_log=len(resources.logs) > 1,
            directory=resources.directory,
        )
        self._processes.spawn_zygote(boot, [*resources.log_fds, *(li.socket.fileno() for li in resources.listeners)])

    def _every(self, period: float, chore: Callable[[], None]) -> None:
        index = len(self._periodic)

        def turn() -> None:
            self._periodic[index] = self._loop.call_later(period, turn)
            chore()

        self._periodic.append(self._loop.call_later(period, turn))

    def _look_at_beats(self) -> None:
        self._handle(ev.Beats(self._processes.beats()))

    def _do_chores(self) -> None:
        for listener in self._listeners():
            if (news := listener.tend()) is not None:
                log.warning("%s", news)
        self._chores += 1
        self._look_at_files(begin=self._chores % CODE_CHORES == 0)
        if self._logs is not None and not self._waits_for_a_child:
            unix.reap_strangers(self._processes.pids)

    @property
    def _waits_for_a_child(self) -> bool:
        """Whether a preflight, or a settings file in Python, may be running: children that `Processes` does not know.

        Whoever started one waits for it, and only he: a status that the chores took would be nobody's any more (the
        upgrade saw ECHILD; subprocess takes that for exit code 0). Their time is bounded, and strangers can wait.
        """
        return any(not task.done() for task in (self._upgrade, *self._reading) if task is not None)

    def _know_files(self, generation: int, files: Fingerprint) -> None:
        """The first that loads a generation's code says which files that is."""
        if not files or generation in self._files:
            return
        before = max((number for number in self._files if number < generation), default=None)
        if before is not None and files == self._files[before].files:
            log.info("generation %d has the code of generation %d: no loaded file has changed", generation, before)
        self._files[generation] = CodeWatch(files)

    def _look_at_files(self, *, begin: bool) -> None:
        current = self._state.current
        files = self._files.get(current.number) if current else None
        if files and current and (begin or files.under_way) and (news := files.news()):
            log.warning("%s (generation %d): a reload is due; until then the loaded code serves", news, current.number)

    def _listeners(self) -> list[Listener]:
        return list({id(li): li for resources in self._resources.values() for li in resources.listeners}.values())

    def _start_listening(self, generation: int) -> None:
        """Let clients connect to whatever this generation is given, as far as that can be had."""
        resources, first = self._resources[generation], not self._serving
        self._serving, before, self._listening_on = generation, self._listening_on, []
        refused: list[BindError] = []
        for listener in resources.listeners:
            try:
                listener.listen(resources.config.backlog)  # again, most of them: the backlog may be another
            except BindError as error:  # two masters can both have bound before one of them listens (trap 56)
                refused.append(error)
                continue
            self._listening_on.append(listener)
            if listener not in before:
                log.info("listening on %s", listener.name)
        if refused and first:
            self._state.result = ev.Exit(refused[0].exit_code, "; ".join(map(str, refused)))
            self._loop.call_soon(self.stop, ev.StopMode.QUICK, "a listener is taken")
            return
        for refusal in refused:
            log.error("%s; the other listeners serve, and a reload tries this one again", refusal)
        if not self._listening.is_set():
            self._listening.set()
            self._run_hook("when_ready")

    def _follow_generations(self) -> None:
        """Take up what a generation brings when it becomes the current one; close what only gone ones used."""
        current = self._state.current
        if current is not None and current.number != self._serving and self._serving:
            resources = self._resources[current.number]
            if self._logs is not None:
                try:
                    self._logs.renew(resources.config, open_private(resources.log_fds[0]))
                except ConfigError as error:  # the file has changed since the reload looked at it
                    log.error("%s; the master's own log stays as it was", error)  # noqa: TRY400
            self._start_listening(current.number)
        for generation in [g for g in self._resources if g not in self._state.generations]:
            gone = self._resources.pop(generation)
            self._files.pop(generation, None)
            if gone is self._next and self._resources:
                self._next = self._resources[max(self._resources)]  # it failed: nothing of it may stay open
            for listener in let_go(gone, (*self._resources.values(), self._next)):
                log.info("%s is no longer listened on", listener.name)
