"""The loop of the master: takes in events, carries out the state machine's commands, sets the timer for the next.

Runs in the master process's stdlib loop, or in the loop of a program that embeds a whole master. It waits for the next
event or deadline, and never for a worker or zygote; it never imports user code, and never forks.
"""

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import anyio

from aserver import unix
from aserver.config import Resolved
from aserver.errors import ConfigError
from aserver.ipc import messages as msg
from aserver.ipc.board import BoardFile, Debugged
from aserver.log.opening import open_private
from aserver.log.setup import Logging
from aserver.master.code_watch import CodeWatch
from aserver.master.core import events as ev
from aserver.master.core.explain import readiness
from aserver.master.core.limits import BEAT_PERIOD, Limits
from aserver.master.core.machine import Master
from aserver.master.core.model import ServerPhase
from aserver.master.journal import Journal
from aserver.master.notify import ReadyLines, ServiceManager
from aserver.master.pidfile import PidFile
from aserver.master.processes import Processes
from aserver.master.reload import Reloads
from aserver.master.resources import AllResources
from aserver.master.saves import Saves
from aserver.master.snapshot import SavedLog, SavedWorker, SavedZygote, Snapshot, read_model, write_model
from aserver.master.upgrade import become, not_upgraded, preflight
from aserver.sockets import Listener, hand_over, take_over

log = logging.getLogger("aserver.master")

#: Seconds between two looks at socket paths and at orphans of user code.
CHORES_PERIOD = 1.0
#: Seconds that an upgrade waits for the rest of a message before it cuts its peer off, which may never send or take it.
MESSAGE_PATIENCE = 5.0
#: Chores between two looks at the files of the loaded code (a stat(2) each).
CODE_CHORES = 5


class Runner:
    """Runs a server to its end. All that it opens it closes, also when it fails."""

    def __init__(
        self,
        resources: AllResources,
        *,
        logs: Logging | None,
        reread: Callable[[], Resolved],
        pidfile: PidFile | None = None,
        control: Listener | None = None,
        admin: Sequence[Listener] = (),
        board: BoardFile | None = None,
        ready_lines: ReadyLines | None = None,
    ) -> None:
        """`resources` are closed at the end. `reread` reads the settings again for a reload; it raises ConfigError.

        `logs` are this process's own, or None in a process that is not ours: then it neither becomes a subreaper nor is
        told where to log. `pidfile` is removed at the end.
        """
        self.logs = logs
        self._pidfile = pidfile
        #: The control socket; `control.answers` obeys the orders that come there.
        self.control = control
        #: The listeners of the admin endpoint; `control.companion` keeps its process.
        self.admin = admin
        self.began = time.monotonic()  # of the server, not of this image
        #: Settings, listeners and logs.
        self.resources, first = resources, resources.next
        self._code = CodeWatch()
        #: Signals that have come and that the loop has not obeyed yet; an upgrade takes them along.
        self.noted: list[int] = []
        self._chores = 0
        self.journal = Journal()
        self.told: dict[str, list[float]] = {}  # the counts that `control.statsd` has told
        self.model = Master(Limits.of(first.config, first.workers), random.random)
        self._saves = Saves.watched(first, self.handle, self.reload)
        self.processes = Processes(self._hear, board, self.resources.of)
        if logs is not None:
            logs.share_half_lines(self.processes.board.fd)
        self._reloads = Reloads(self.resources, reread, self.handle, self.journal.say, own_process=logs is not None)
        # Where the process is not ours, the program that embeds the server speaks to the manager.
        self._manager = ServiceManager.found(os.environ, os.getpid()) if logs is not None else ServiceManager(None)
        self._ready_lines = ready_lines or ReadyLines({})
        self.journal.followers += [self._ready_lines.hear, self._manager.hear]
        self._upgrade: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[ev.Exit] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._periodic: list[asyncio.TimerHandle] = []
        self.listening = asyncio.Event()  # the first worker is ready and the listeners accept
        self._orders = self._order_table()

    @classmethod
    def resumed(
        cls, snapshot: Snapshot, *, logs: Logging, reread: Callable[[], Resolved], pidfile: PidFile | None
    ) -> Self:
        """Go on where this process's former image stopped (SIGUSR2), then reload. Raises ConfigError."""
        resources = AllResources.restored(snapshot)
        control = take_over(snapshot.control) if snapshot.control is not None else None
        board = BoardFile(snapshot.board)
        admin = [take_over(each) for each in snapshot.admin]
        runner = cls(
            resources,
            logs=logs,
            reread=reread,
            pidfile=pidfile,
            control=control,
            admin=admin,
            board=board,
            ready_lines=ReadyLines(snapshot.ready_lines),
        )
        runner.began = snapshot.began
        for generation, files in snapshot.files.items():
            runner._code.know(generation, files)
        runner.model = read_model(snapshot.model, random.random)
        runner.journal.restore(snapshot.records, snapshot.counts)
        runner.processes.workers.totals, runner.told = snapshot.totals, snapshot.told
        runner.processes.inherit(snapshot)
        runner.listening.set()
        runner._loop.call_soon(runner._reloads.request, "after the upgrade", (), snapshot.upgrade)
        return runner

    # ── life ─────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> ev.Exit:
        """Serve until stopped; cancelling it is a graceful stop that is waited for, a second time a quick one."""
        if self.logs is not None:
            unix.become_subreaper()
            unix.let_others_first()  # an embedding program's process is its own
        self._manager.keep(self.resources.accepting)
        self._every(BEAT_PERIOD, self._look_at_beats)
        self._every(CHORES_PERIOD, self.do_chores)
        self.handle(ev.Started())
        try:
            return await asyncio.shield(self._done)
        except asyncio.CancelledError:
            self.stop(ev.StopMode.GRACEFUL, "cancelled")
            with anyio.CancelScope(shield=True):  # an outer scope cancels again and again: a busy loop here
                while not self._done.done():
                    try:
                        await asyncio.shield(self._done)
                    except asyncio.CancelledError:  # a second Ctrl-C under asyncio.run()
                        self.stop(ev.StopMode.QUICK, "cancelled again")
            raise
        finally:
            self.close()

    def stop(self, mode: ev.StopMode, why: str) -> None:
        """Ask for the end; asked again, it is quicker. A worker that a debugger holds does not hear of it."""
        if mode is ev.StopMode.QUICK and self.processes.workers.halted():
            mode = ev.StopMode.KILL
        self.handle(ev.StopRequested(mode, why))

    def reload(self, why: str, *tickets: int) -> None:
        """Read the settings again and start a new generation; a mistake in them is logged and changes nothing."""
        self._manager.reloads()
        self._reloads.request(why, tickets)

    def upgrade(self, why: str, *tickets: int) -> None:
        """Become a new image of this program, if a preflight says that it would work."""
        upgrade = ev.Upgrade(time.monotonic(), tickets)
        if self._upgrade is not None and not self._upgrade.done():
            self.journal.say(not_upgraded(upgrade, "warning", f"({why}) refused", "one is under way"))
        elif self.logs is None:
            self.journal.say(not_upgraded(upgrade, "warning", f"({why}) refused", "this process is not aserver's own"))
        else:
            self._upgrade = self._loop.create_task(self._do_upgrade(why, upgrade))

    async def _do_upgrade(self, why: str, upgrade: ev.Upgrade) -> None:
        self.journal.say(ev.Say("info", f"upgrade ({why}): preflight", event="upgrade.begins", reason=why))
        if (reason := await preflight(self.resources.next.config)) is not None:
            self.journal.say(not_upgraded(upgrade, "error", f"({why}) refused", reason))
            return
        self._run_hook("pre_exec")
        patience = self._loop.time() + MESSAGE_PATIENCE
        while not self.processes.quiet or self._reloads.busy:
            if self._loop.time() > patience:
                self.processes.cut_off_halves(f"half a message for {MESSAGE_PATIENCE:g} s, and an upgrade waits for it")
            await asyncio.sleep(BEAT_PERIOD)
        if self.model.over or self.model.server is not ServerPhase.SERVING:
            self.journal.say(
                not_upgraded(upgrade, "warning", f"({why}) given up", f"the server is {self.model.server.value}")
            )
            return
        log.info("upgrade (%s): the master re-executes itself", why)
        error = become(self._snapshot(upgrade), self.noted)
        self.journal.say(not_upgraded(upgrade, "error", f"({why}) failed", str(error.strerror)))

    def _snapshot(self, upgrade: ev.Upgrade) -> Snapshot:
        resources = self.resources
        logs = {(file.which, file.path): SavedLog(file.path, file.which, file.fd) for file in resources.logs}
        return Snapshot(
            model=write_model(self.model),
            board=self.processes.board.fd,
            zygotes=[zygote.saved(SavedZygote) for zygote in self.processes.zygotes.values()],
            workers=[worker.saved(SavedWorker) for worker in self.processes.workers.all.values()],
            listeners=[hand_over(listener) for listener in resources.listeners],
            logs=list(logs.values()),
            resources={generation: each.saved() for generation, each in resources.of.items()},
            files=self._code.saved(),
            serving=resources.serving,
            outputs=self.processes.output.hand_over(),
            records=list(self.journal.records),
            counts=self.journal.counts,
            totals=self.processes.workers.totals,
            told=self.told,
            began=self.began,
            control=hand_over(self.control) if self.control is not None else None,
            admin=[hand_over(listener) for listener in self.admin],
            upgrade=upgrade,
            ready_lines=self._ready_lines.lines,
            pidfile=self._pidfile.fd if self._pidfile else None,
            pidfile_lock=self._pidfile.lock.fd if self._pidfile and self._pidfile.lock else None,
        )

    def scale(self, *tickets: int, delta: int = 0, to: int | None = None) -> None:
        """Change the number of workers."""
        before = self.model.target
        self.handle(ev.Scale(delta, to, tickets))
        if self.model.target != before:
            self._run_hook("nworkers_changed", self.model.target, before)

    def reopen_logs(self) -> None:
        """Open the log files again and hand them to every process, for rotation (SIGUSR1)."""
        self.resources.reopen_logs()
        of = self.resources.of
        if self.logs is not None:
            self.logs.replace(open_private(of[max(of)].log_fds[0]), None)
        self.processes.reopen_logs(lambda generation: of[generation].log_fds)
        self.journal.say(ev.Say("info", "logs reopened", event="logs.reopened"))

    def _run_hook(self, name: str, *numbers: int) -> None:
        current = self.model.current
        if current is not None:
            self.processes.tell(current.number, msg.RunHook(name, numbers))

    def readiness(self) -> tuple[bool, str]:
        """Whether clients should be sent here, and a clause about it."""
        return readiness(self.model, self.processes.workers.beats())

    @property
    def at_prompt(self) -> bool:
        """Whether a debugger of a worker reads the terminal."""
        return bool(self.processes.workers.debugged(Debugged.AT_PROMPT))

    def close(self) -> None:
        """Close everything; `run` does so at its end."""
        for timer in (self._timer, *self._periodic):
            if timer is not None:
                timer.cancel()
        if self._saves is not None:
            self._saves.watch.close()
        self.processes.close()
        self.resources.close()
        self._manager.close()
        if self._pidfile is not None:
            self._pidfile.remove()

    # ── events in, commands out ──────────────────────────────────────────────────────────────

    def _hear(self, event: ev.Event) -> None:
        """Take in an event of the processes: a message that says that code was loaded has the files of that code."""
        if isinstance(event, msg.Loaded):
            self._know(event.generation, event.fingerprint)
        elif isinstance(event, msg.Ready) and (worker := self.model.workers.get(event.serial)) is not None:
            self._know(worker.generation, event.fingerprint)
        self.handle(event)

    def _know(self, generation: int, files: msg.Files) -> None:
        if self._saves is None:
            self._code.know(generation, files)
        else:
            self._saves.watch.look_at(files)

    def handle(self, event: ev.Event) -> None:
        """Decide what follows from an event, carry that out, and set the timer for the next deadline."""
        if self._done.done():
            return
        announced = self.model.announced
        commands = self.model.handle(event, time.monotonic())
        if self.model.announced is not announced:
            self._tell_readiness()  # before the commands announce it: `health_check` must say the same at once
        for command in commands:
            self._orders[type(command)](command)
        self._manager.follow(self.model, reloading=self._reloads.busy)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.model.next_deadline()
        if deadline is not None and not self._done.done():
            self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self.handle, ev.Tick())

    def _order_table(self) -> dict[type, Callable[[Any], None]]:
        """The function that carries out each command."""
        zygotes, workers = self.processes, self.processes.workers
        return {
            ev.SpawnZygote: self._spawn_zygote,
            ev.QuitZygote: self._quit_zygote,
            ev.KillZygote: lambda order: zygotes.kill(order.generation, signal.Signals[order.signal]),
            ev.AdoptWorkers: lambda order: zygotes.adopt_workers(order.generation),
            msg.Fork: workers.fork,
            msg.Drain: lambda order: workers.tell(order.serial, order),
            ev.Kill: lambda order: workers.signal(order.serial, signal.Signals[order.signal]),
            ev.DumpStacks: workers.dump_stacks,
            ev.StartListening: lambda order: self.listen(order.generation),
            ev.Forget: self._forget,
            ev.CloseListeners: lambda _: self.resources.close_listeners(),
            ev.Say: self.journal.say,
            ev.Exit: self._done.set_result,
        }

    def _spawn_zygote(self, order: ev.SpawnZygote) -> None:
        boot, fds = self.resources.give(order.generation).boot(order.generation, lazy=order.lazy)
        self.processes.spawn(boot, fds)

    def _quit_zygote(self, order: ev.QuitZygote) -> None:
        last = self.model.stop is not None and order.generation == max(self.processes.zygotes, default=0)
        self.processes.tell(order.generation, msg.Quit(last))

    def listen(self, generation: int) -> None:
        """Listen where the settings of a generation say, but for addresses that are taken, and log where they say."""
        first = not self.resources.serving
        if self.logs is not None and not first:
            resources = self.resources.of[generation]
            try:
                self.logs.renew(resources.config, open_private(resources.log_fds[0]))
            except ConfigError as error:  # the file has changed since the reload looked at it
                log.error("%s; the master's own log stays as it was", error)  # noqa: TRY400
        refused = self.resources.listen(generation)
        if refused and first:
            self.model.result = ev.Exit(refused[0].exit_code, "; ".join(map(str, refused)))
            self._loop.call_soon(self.stop, ev.StopMode.QUICK, "a listener is taken")
            return
        for refusal in refused:
            log.error("%s; the other listeners serve, and a reload tries this one again", refusal)
        self._manager.keep(self.resources.accepting)
        if not self.listening.is_set():
            self.listening.set()
            self._run_hook("when_ready")

    def _forget(self, order: ev.Forget) -> None:
        self.resources.forget(order.generation)
        self._code.forget(order.generation)

    # ── periodic ─────────────────────────────────────────────────────────────────────────────

    def _every(self, period: float, chore: Callable[[], None]) -> None:
        index = len(self._periodic)

        def turn() -> None:
            self._periodic[index] = self._loop.call_later(period, turn)
            chore()

        self._periodic.append(self._loop.call_later(period, turn))

    def _look_at_beats(self) -> None:
        workers = self.processes.workers
        beats = workers.beats()
        self.handle(ev.Beats(beats, workers.debugged()))
        self._tell_readiness()
        self._manager.sign_of_life(time.monotonic(), beats.values(), needed=self.model.announced)

    def _tell_readiness(self) -> None:
        ready, reason = self.readiness()
        self.processes.board.tell_readiness(ready=ready, reason=reason)

    def do_chores(self) -> None:
        """Look at socket paths, at the files of the loaded code, and for orphans of user code."""
        listeners = [*self.resources.listeners, *self.admin, *([self.control] if self.control is not None else [])]
        for listener in listeners:
            if (news := listener.tend()) is not None:
                self.journal.say(ev.Say("warning", news, event="listener.changed"))
        self._manager.tend(self.model, reloading=self._reloads.busy)
        self._chores += 1
        if self.model.current is not None:
            self._code.look(self.model.current.number, begin=self._chores % CODE_CHORES == 0)
        # A preflight and a settings file in Python are children too, but not strangers: a task waits for each. A status
        # taken from it here would be lost (the upgrade saw ECHILD; subprocess takes that for exit code 0).
        waited_for = self._reloads.busy or (self._upgrade is not None and not self._upgrade.done())
        if self.logs is not None and not waited_for:
            unix.reap_strangers(self.processes.pids)
