"""The master's decisions: what to do next with the zygotes and workers there are.

Pure. `handle(event, now)` applies one event whole, then compares what is with what should be until nothing
is left to order, and returns the orders; `next_deadline()` says when to call again though nothing happened.
It never waits: reload, drain and stop are states with absolute deadlines in monotonic seconds.

    worker      BOOTING ──ready──> READY ──due──> RETIRING ──replacement ready──> DRAINING ──> (gone)
                   └──────────── late, hung, overran ──────────> KILLING ──> (gone)
    zygote      LOADING ──> UP ──> LEAVING ──> (gone)      UP ──died──> DOWN ──> LOADING
    generation  CANDIDATE ──a worker of it is ready──> CURRENT ──> OLD      CANDIDATE ──> FAILED
    server      BOOTING ──first worker ready──> SERVING ──> STOPPING ──> DONE

Rules an editor must keep (tests/stateful holds them under lost, doubled and reordered events):
* one Drain per worker; no order to a worker that is gone; an event for an unknown serial changes nothing;
* never more than `workers + max_surge` processes are forked for (a reload's canary may always be one more
  than `workers`, since promise 3 needs it); never fewer ready than `workers - max_unavailable` by our own doing;
* nothing old is touched before a worker of the new generation serves;
* a stop leads to Exit within `graceful_timeout` + the kill allowance, from any state.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import assert_never

from aserver.errors import ExitCode
from aserver.master import events as ev
from aserver.master import policy
from aserver.master.fleet import Generation, Phase, Role, Server, Worker, Zygote
from aserver.master.policy import BackOff, Intent, Limits, Rng

#: Seconds between two looks at the heartbeats. A look that comes later than twice this means that the
#: master itself stood still (suspend, SIGSTOP of the group), and proves nothing about the workers (trap 35).
BEAT_PERIOD = 0.25


@dataclass(slots=True)
class Master:
    """The whole state. `rng` is as random.random."""

    limits: Limits
    rng: Rng
    lazy: bool = False
    server: Server = Server.BOOTING
    generations: dict[int, Generation] = field(default_factory=dict)
    workers: dict[int, Worker] = field(default_factory=dict)
    target: int = 0
    pending: ev.ReloadRequested | None = None
    last_reload: str = ""
    boot_failures: int = 0
    stop: ev.StopMode | None = None
    stop_begins: float = 0.0
    listeners_open: bool = True
    result: ev.Exit = field(default_factory=lambda: ev.Exit(ExitCode.OK))
    _now: float = 0.0
    _reload_not_before: float = 0.0
    _beats_at: float | None = None
    _clock_restart: float = 0.0
    _serials: int = 0
    _numbers: int = 0
    _announced: int = -1
    _out: list[ev.Command] = field(default_factory=list)

    # ── the two entry points ─────────────────────────────────────────────────────────────────

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Apply `event` at `now`; the orders come in the order in which they must be carried out."""
        self._now = max(now, self._now)
        self._apply(event)
        self._reconcile()
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> float | None:
        """The next moment at which a Tick would change anything, in monotonic seconds."""
        times = [t for t in self._deadlines() if t is not None and t > self._now]
        return min(times, default=None)

    def _deadlines(self) -> Iterator[float | None]:
        yield self.stop_begins
        for worker in self.workers.values():
            yield worker.deadline
            if worker.ready_at is not None:
                yield worker.ready_at + self.limits.canary_time
                yield worker.ready_at + self.limits.min_lifetime
        for generation in self.generations.values():
            yield generation.deadline
            yield generation.backoff.not_before
            if generation.role is Role.CANDIDATE:
                yield from (w.ready_at + generation.limits.canary_time for w in self._of(generation) if w.ready_at)
        if self.pending is not None:
            yield self._reload_not_before

    def _apply(self, event: ev.Event) -> None:  # noqa: C901, PLR0912  (a table of one line each)
        match event:
            case ev.Started():
                self._on_started()
            case ev.ZygoteUp():
                self._on_zygote_up(event)
            case ev.ZygoteUnforkable():
                self._on_zygote_unforkable(event)
            case ev.ZygoteFailed():
                self._on_zygote_failed(event)
            case ev.ZygoteGone():
                self._on_zygote_gone(event)
            case ev.Forked():
                self._on_forked(event)
            case ev.ForkFailed():
                self._on_fork_failed(event)
            case ev.Ready():
                self._on_ready(event)
            case ev.BootFailed():
                self._on_boot_failed(event)
            case ev.RetireAsked():
                self._on_retire_asked(event)
            case ev.Died():
                self._on_died(event)
            case ev.Beats():
                self._on_beats(event)
            case ev.StopRequested():
                self._on_stop_requested(event)
            case ev.ReloadRequested():
                self._on_reload_requested(event)
            case ev.Scale():
                self._on_scale(event)
            case ev.Tick():
                pass
            case _:
                assert_never(event)

    # ── what there is ────────────────────────────────────────────────────────────────────────

    def _role(self, role: Role) -> Generation | None:
        return next((g for g in self.generations.values() if g.role is role), None)

    @property
    def current(self) -> Generation | None:
        """The generation that new workers come from."""
        return self._role(Role.CURRENT)

    @property
    def candidate(self) -> Generation | None:
        """The generation that has yet to show that it works."""
        return self._role(Role.CANDIDATE)

    @property
    def ready(self) -> int:
        """How many workers serve."""
        return sum(w.serves for w in self.workers.values())

    def _of(self, generation: Generation) -> list[Worker]:
        return [w for w in self.workers.values() if w.generation == generation.number]

    def _outgoing(self, worker: Worker) -> bool:
        """Whether `worker` serves but should be replaced."""
        current = self.current
        old = current is not None and worker.generation < current.number
        return worker.serves and (worker.phase is Phase.RETIRING or old)

    def _can_fork(self, generation: Generation, surge: int) -> bool:
        return (
            generation.zygote is Zygote.UP
            and generation.backoff.not_before <= self._now
            and len(self.workers) < self.target + surge
        )

    def _can_lose_one(self) -> bool:
        return self.ready - 1 >= self.target - self.limits.max_unavailable

    # ── orders ───────────────────────────────────────────────────────────────────────────────

    def _say(self, level: str, text: str, detail: str = "") -> None:
        self._out.append(ev.Say(level, text, detail))

    def _begin_generation(self, limits: Limits) -> Generation:
        self._numbers += 1
        generation = Generation(
            number=self._numbers,
            limits=limits,
            role=Role.CANDIDATE,
            zygote=Zygote.DOWN,
            deadline=None,
            backoff=BackOff(free=max(3, limits.workers), rng=self.rng),
            spawns=BackOff(free=2, rng=self.rng),
            lazy=self.lazy,
        )
        self.generations[generation.number] = generation
        self._reload_not_before = self._now + policy.RELOAD_SPACING
        self._spawn_zygote(generation)
        return generation

    def _spawn_zygote(self, generation: Generation) -> None:
        generation.zygote = Zygote.LOADING
        generation.deadline = self._now + generation.limits.boot_timeout
        self._out.append(ev.SpawnZygote(generation.number, generation.lazy))

    def _fork(self, generation: Generation, slot: int) -> None:
        self._serials += 1
        # The deadline counts from before the fork, so that a hanging import is caught in lazy mode too.
        self.workers[self._serials] = Worker(
            serial=self._serials,
            slot=slot,
            generation=generation.number,
            phase=Phase.BOOTING,
            deadline=self._now + generation.limits.boot_timeout,
            began=self._now,
        )
        requests, seconds = generation.limits.draw_lifetime(self.rng)
        self._out.append(ev.Fork(generation.number, self._serials, slot, requests, seconds))

    def _drain(self, worker: Worker, *, final: bool = False, graceful: float | None = None) -> None:
        if graceful is None:
            graceful = self.limits.graceful_timeout
        worker.phase = Phase.DRAINING
        worker.intent = Intent.LEAVE
        worker.deadline = self._now + graceful + self.limits.leave_allowance
        order = ev.Drain(worker.serial, final, graceful)
        if worker.pid is None:
            worker.unsent = order  # nobody to tell yet: sent when the process is known
        else:
            self._out.append(order)

    def _hurry(self, worker: Worker) -> None:
        worker.hurried = True
        worker.deadline = min(worker.deadline or self._now, self._now + self.limits.leave_allowance)
        if worker.unsent is not None:
            worker.unsent = replace(worker.unsent, graceful=0.0)
        else:
            self._out.append(ev.Hurry(worker.serial))

    def _kill(self, worker: Worker, intent: Intent, signal: str = "SIGKILL") -> None:
        worker.phase = Phase.KILLING
        worker.intent = intent
        allowance = policy.ABORT_ALLOWANCE if signal == "SIGABRT" else policy.KILL_ALLOWANCE
        worker.deadline = self._now + allowance
        if self.server is Server.STOPPING and self.result.code == ExitCode.OK:
            self.result = ev.Exit(ExitCode.KILLED, "stopped, but a worker had to be killed")
        if worker.pid is not None:
            self._out.append(ev.Kill(worker.serial, signal))

    def _kill_zygote(self, generation: Generation) -> None:
        generation.deadline = self._now + policy.KILL_ALLOWANCE
        self._out.append(ev.KillZygote(generation.number))

    def _give_up(self, code: int, reason: str, detail: str) -> None:
        """No worker ever served and none will: end, with the cause as the last thing printed."""
        self.result = ev.Exit(code, reason, detail)
        self._request_stop(ev.StopMode.QUICK)

    def _request_stop(self, mode: ev.StopMode) -> None:
        if self.stop is None and mode is ev.StopMode.GRACEFUL and self.server is Server.SERVING:
            self.stop_begins = self._now + self.limits.drain_delay
        else:
            self.stop_begins = min(self.stop_begins, self._now)
        self.stop = max(mode, self.stop or mode)
        if self.server is not Server.DONE:
            self.server = Server.STOPPING
        self.pending = None

    # ── events ───────────────────────────────────────────────────────────────────────────────

    def _on_started(self) -> None:
        if not self.generations and self.server is Server.BOOTING:
            self.target = self.limits.workers
            self._begin_generation(self.limits)

    def _on_zygote_up(self, event: ev.ZygoteUp) -> None:
        generation = self.generations.get(event.generation)
        if generation is None or generation.zygote is not Zygote.LOADING:
            return
        generation.zygote, generation.deadline = Zygote.UP, None
        generation.began = self._now
        generation.spawns.succeeded()
        if self.workers:
            self._out.append(ev.AdoptWorkers(generation.number))

    def _on_zygote_unforkable(self, event: ev.ZygoteUnforkable) -> None:
        generation = self.generations.get(event.generation)
        if generation is not None and generation.zygote is Zygote.LOADING:
            generation.lazy = True
            generation.zygote = Zygote.TURNING

    def _on_zygote_failed(self, event: ev.ZygoteFailed) -> None:
        generation = self.generations.get(event.generation)
        if generation is None or generation.zygote is not Zygote.LOADING or self.server is Server.STOPPING:
            return
        if generation.role is Role.CANDIDATE:
            self._candidate_failed(generation, event.exit_code, event.reason, event.detail)
        elif generation.role is Role.CURRENT:
            self._say(
                "error",
                f"generation {generation.number}: a new zygote could not load the app: {event.reason}; "
                f"{self.ready} of {self.target} workers serve on, a reload with working code is due",
                event.detail,
            )

    def _on_zygote_gone(self, event: ev.ZygoteGone) -> None:
        generation = self.generations.get(event.generation)
        if generation is None or generation.zygote in (Zygote.DOWN, Zygote.GONE):
            return
        for worker in [w for w in self._of(generation) if w.pid is None]:
            del self.workers[worker.serial]  # the order to fork died with the zygote
        before, generation.zygote, generation.deadline = generation.zygote, Zygote.GONE, None
        stopping = self.server in (Server.STOPPING, Server.DONE)
        if before is Zygote.LEAVING or stopping or generation.role in (Role.OLD, Role.FAILED):
            return
        if before is Zygote.TURNING:
            self._spawn_zygote(generation)
        elif generation.role is Role.CANDIDATE and before is Zygote.LOADING:
            reason = f"the zygote {event.how} while loading the app"
            self._candidate_failed(generation, ExitCode.BOOT, reason, "")
        else:
            if before is Zygote.LOADING:
                pause = generation.spawns.boot_failed(self._now)
            else:
                pause = generation.spawns.died(self._now, self._now - generation.began)
            generation.zygote, generation.deadline = Zygote.DOWN, self._now + pause
            self._say(
                "error",
                f"zygote of generation {generation.number} {event.how}; its workers serve on, "
                f"another zygote starts {_when(pause)}",
            )

    def _on_forked(self, event: ev.Forked) -> None:
        worker = self.workers.get(event.serial)
        if worker is None or worker.pid is not None:
            return
        worker.pid = event.pid
        if worker.phase is Phase.KILLING:
            self._out.append(ev.Kill(worker.serial, "SIGKILL"))
        elif worker.unsent is not None:
            self._out.append(worker.unsent)
            worker.unsent = None

    def _on_fork_failed(self, event: ev.ForkFailed) -> None:
        worker = self.workers.get(event.serial)
        if worker is not None and worker.pid is None:
            del self.workers[worker.serial]
            self._worker_did_not_boot(worker, ExitCode.BOOT, f"fork failed: {event.reason}", "")

    def _on_ready(self, event: ev.Ready) -> None:
        worker = self.workers.get(event.serial)
        if worker is None or worker.phase is not Phase.BOOTING or worker.failure is not None:
            return
        worker.phase, worker.deadline, worker.ready_at = Phase.READY, None, self._now
        generation = self.generations[worker.generation]
        generation.backoff.succeeded()
        self._say("info", f"{worker} is ready after {self._now - worker.began:.2f} s")
        if self.server is Server.BOOTING:
            self.server = Server.SERVING
            self._out.append(ev.StartListening())
            self._promote(generation)

    def _on_boot_failed(self, event: ev.BootFailed) -> None:
        worker = self.workers.get(event.serial)
        if worker is not None and worker.phase is Phase.BOOTING and worker.failure is None:
            worker.failure = event  # acted upon when the process is gone, which must be soon
            worker.deadline = self._now + self.limits.leave_allowance

    def _on_retire_asked(self, event: ev.RetireAsked) -> None:
        worker = self.workers.get(event.serial)
        if worker is not None and worker.phase is Phase.READY and not worker.due:
            worker.due = event.reason

    def _on_died(self, event: ev.Died) -> None:
        worker = self.workers.pop(event.serial, None)
        if worker is None:
            return
        generation = self.generations[worker.generation]
        how = policy.explain_exit(event.code, event.signal, worker.intent, out_of_memory=event.out_of_memory)
        if worker.failure is not None:
            self._worker_did_not_boot(worker, worker.failure.exit_code, worker.failure.reason, worker.failure.detail)
        elif worker.phase is Phase.DRAINING and event.code == 0:
            self._say("info", f"{worker} has left after {self._now - worker.began:.1f} s")
        elif self.server is Server.STOPPING or worker.phase is Phase.DRAINING or worker.intent is Intent.OVERRAN:
            self._say("warning", f"{worker} {how}")
        elif worker.ready_at is None:
            self._worker_did_not_boot(worker, ExitCode.BOOT, how, "")
        elif generation.role is Role.CANDIDATE:
            self._candidate_failed(generation, ExitCode.BOOT, f"{worker} {how}", "")
        else:
            pause = generation.backoff.died(self._now, self._now - worker.ready_at)
            self._say("error", f"{worker} {how}; {self.ready} of {self.target} serve, a new one starts {_when(pause)}")

    def _on_beats(self, event: ev.Beats) -> None:
        if self._beats_at is None or self._now - self._beats_at > 2 * BEAT_PERIOD:
            self._clock_restart = self._now
        self._beats_at = self._now
        for serial, beat in event.beats.items():
            worker = self.workers.get(serial)
            if worker is None or worker.ready_at is None or worker.phase is Phase.KILLING:
                continue
            silent = self._now - max(beat, worker.ready_at, self._clock_restart)
            if self.limits.hang_timeout and silent >= self.limits.hang_timeout:
                self._say("error", f"{worker}: its event loop stands still for {silent:.1f} s (hang_timeout is "
                          f"{self.limits.hang_timeout:g} s); it is aborted and replaced")  # fmt: skip
                self._out.append(ev.DumpStacks(serial, silent, fatal=True))
                self._kill(worker, Intent.HUNG, "SIGABRT")
            elif self.limits.slow_callback and silent >= self.limits.slow_callback and worker.reported_beat != beat:
                worker.reported_beat = beat
                self._out.append(ev.DumpStacks(serial, silent, fatal=False))

    def _on_stop_requested(self, event: ev.StopRequested) -> None:
        mode = event.mode
        if self.stop is not None and mode <= self.stop:
            mode = ev.StopMode(min(self.stop + 1, ev.StopMode.KILL))  # asked again: be quicker
        how = {
            ev.StopMode.GRACEFUL: f"requests in flight get up to {self.limits.graceful_timeout:g} s",
            ev.StopMode.QUICK: "requests in flight are cancelled",
            ev.StopMode.KILL: "what still runs is killed",
        }
        if self.server is not Server.DONE and self.stop != mode:
            self._say("info", f"stopping ({event.why}): {how[mode]}")
            self._request_stop(mode)

    def _on_reload_requested(self, event: ev.ReloadRequested) -> None:
        if self.server in (Server.STOPPING, Server.DONE):
            self._say("warning", f"reload ({event.why}) refused: the server is stopping")
            return
        self.pending = event

    def _on_scale(self, event: ev.Scale) -> None:
        if self.server in (Server.STOPPING, Server.DONE):
            return
        wanted = event.to if event.to is not None else max(1, self.target + event.delta)
        if wanted != self.target:
            self._say("info", f"scaling from {self.target} to {wanted} workers")
            self.target = wanted

    # ── failures ─────────────────────────────────────────────────────────────────────────────

    def _worker_did_not_boot(self, worker: Worker, code: int, reason: str, detail: str) -> None:
        generation = self.generations[worker.generation]
        if self.server is Server.STOPPING or generation.role in (Role.OLD, Role.FAILED):
            return
        if generation.role is Role.CANDIDATE:
            self._candidate_failed(generation, code, f"{worker} could not boot: {reason}", detail)
            return
        pause = generation.backoff.boot_failed(self._now)
        self._say(
            "error",
            f"{worker} could not boot: {reason}; {self.ready} of {self.target} workers serve, "
            f"attempt {generation.backoff.failures + 1} {_when(pause)}",
            detail,
        )

    def _candidate_failed(self, generation: Generation, code: int, reason: str, detail: str) -> None:
        if self.current is None:
            self._first_boot_failed(generation, code, reason, detail)
            return
        generation.role = Role.FAILED
        self.last_reload = f"failed: {reason}"
        self._say(
            "error",
            f"reload failed: generation {generation.number}: {reason}; generation {self.current.number} stays "
            f"({self.ready} of {self.target} workers serve)",
            detail,
        )
        self._out.append(ev.Notify("READY=1"))
        for worker in self._of(generation):
            if worker.holds:
                self._drain(worker, graceful=self.limits.graceful_timeout if worker.serves else 0.0)

    def _first_boot_failed(self, generation: Generation, code: int, reason: str, detail: str) -> None:
        self.boot_failures += 1
        tries = self.limits.boot_retries
        # What cannot be imported now cannot be imported in a second; a lifespan that fails may find its database then.
        if code == ExitCode.APP_LOAD or generation.zygote is not Zygote.UP or self.boot_failures >= tries:
            self._give_up(code, reason, detail)
            return
        pause = generation.backoff.boot_failed(self._now)
        self._say("error", f"{reason}; attempt {self.boot_failures + 1} of {tries} {_when(pause)}", detail)

    # ── from what is to what should be ───────────────────────────────────────────────────────

    def _reconcile(self) -> None:
        self._expire_workers()
        self._expire_zygotes()
        if self.server in (Server.BOOTING, Server.SERVING):
            self._start_pending_reload()
            self._try_candidate()
            self._mark_due()
            self._fill_slots()
            self._shrink()
            self._replace_outgoing()
            self._let_generations_go()
            self._announce()
        elif self.server is Server.STOPPING:
            self._reconcile_stop()
        self._forget_generations()

    def _expire_workers(self) -> None:
        for worker in list(self.workers.values()):
            if worker.deadline is None or worker.deadline > self._now:
                continue
            if worker.phase is Phase.KILLING:
                self._kill(worker, worker.intent)  # SIGABRT was not enough, or the kernel is slow: again
            elif worker.phase is Phase.DRAINING or worker.failure is not None:
                self._say("error", f"{worker} did not leave in time; it is killed")
                self._kill(worker, Intent.OVERRAN)
            elif worker.phase is Phase.BOOTING:
                limit = self.generations[worker.generation].limits.boot_timeout
                self._say("error", f"{worker} was not ready within {limit:g} s; it is killed")
                self._out.append(ev.DumpStacks(worker.serial, self._now - worker.began, fatal=True))
                self._kill(worker, Intent.SLOW_BOOT)

    def _expire_zygotes(self) -> None:
        for generation in self.generations.values():
            unforked = [w for w in self._of(generation) if w.pid is None]
            if generation.zygote is Zygote.UP and generation.deadline is None and unforked:
                generation.deadline = self._now + policy.FORK_TIMEOUT
            elif generation.zygote is Zygote.UP and not unforked:
                generation.deadline = None
            if generation.deadline is None or generation.deadline > self._now:
                continue
            if generation.zygote in (Zygote.UP, Zygote.LEAVING, Zygote.TURNING):
                self._say("error", f"zygote of generation {generation.number} does not answer; it is killed")
                self._kill_zygote(generation)
            elif generation.zygote is Zygote.LOADING:
                limit = generation.limits.boot_timeout
                self._say("error", f"zygote of generation {generation.number} has not loaded the app within {limit:g} s; it is killed")  # fmt: skip # noqa: E501
                self._kill_zygote(generation)
            elif generation.zygote is Zygote.DOWN:
                self._spawn_zygote(generation)

    def _start_pending_reload(self) -> None:
        if self.pending is None or self.candidate is not None or self._reload_not_before > self._now:
            return
        pending, self.pending = self.pending, None
        generation = self._begin_generation(pending.limits)
        self._say("info", f"reload ({pending.why}): generation {generation.number} starts")
        self._out.append(ev.Notify("RELOADING=1"))

    def _try_candidate(self) -> None:
        candidate, current = self.candidate, self.current
        if candidate is None or current is None or candidate.zygote is not Zygote.UP:
            return
        if self.target == 0:  # parked (WINCH): the reload unparks, and there is nothing old to protect
            self._promote(candidate)
            return
        canaries = self._of(candidate)
        if not canaries:
            if self._can_fork(candidate, max(1, self.limits.max_surge)):
                outgoing = [w.slot for w in self.workers.values() if w.serves and w.slot <= self.target]
                self._fork(candidate, min(outgoing, default=1))
        elif any(w.serves and w.ready_at is not None and w.ready_at + candidate.limits.canary_time <= self._now for w in canaries):  # fmt: skip # noqa: E501
            self._promote(candidate)

    def _promote(self, generation: Generation) -> None:
        current = self.current
        if current is not None:
            current.role = Role.OLD
            if self.target == 0 or generation.limits.workers != self.limits.workers:
                self.target = generation.limits.workers  # else a number set by TTIN and TTOU stays
            self.last_reload = f"generation {generation.number} serves"
            older = sum(w.serves and w.generation != generation.number for w in self.workers.values())
            self._say("info", f"generation {generation.number} serves; {older} older workers are replaced one by one")
            self._out.append(ev.Notify("READY=1"))
        generation.role = Role.CURRENT
        self.limits = generation.limits

    def _mark_due(self) -> None:
        for worker in self.workers.values():
            if worker.phase is not Phase.READY or not worker.due or worker.ready_at is None:
                continue
            if worker.ready_at + self.limits.min_lifetime <= self._now:
                worker.phase = Phase.RETIRING
                self._say("info", f"{worker} is due: {worker.due}; it serves until its replacement does")

    def _fill_slots(self) -> None:
        source = self.current or self.candidate
        if source is None:
            return
        held = {w.slot for w in self.workers.values() if w.holds and self._counts(w)}
        for slot in range(1, self.target + 1):
            if slot not in held and self._can_fork(source, self.limits.max_surge):
                self._fork(source, slot)

    def _counts(self, worker: Worker) -> bool:
        """A canary fills no slot until its generation is current: what it may replace goes on."""
        return self.current is None or self.generations[worker.generation].role is not Role.CANDIDATE

    def _shrink(self) -> None:
        for worker in list(self.workers.values()):
            if worker.slot <= self.target or not worker.holds or not self._counts(worker):
                continue
            if worker.phase is Phase.BOOTING:
                self._drain(worker, graceful=0.0)
            elif self._can_lose_one():
                self._drain(worker)

    def _replace_outgoing(self) -> None:
        current = self.current
        if current is None:
            return
        for worker in sorted(self.workers.values(), key=lambda w: (w.generation, w.serial)):
            if not self._outgoing(worker) or worker.slot > self.target:
                continue
            partner = next(
                (
                    w
                    for w in self.workers.values()
                    if w.slot == worker.slot and w.holds and w.generation == current.number
                    and w.serial > worker.serial and not self._outgoing(w)
                ),
                None,
            )  # fmt: skip
            if partner is None and self._can_fork(current, self.limits.max_surge):
                self._fork(current, worker.slot)
            elif (partner is None or partner.phase is Phase.READY) and self._can_lose_one():
                self._drain(worker)

    def _let_generations_go(self) -> None:
        for generation in self.generations.values():
            if generation.role in (Role.OLD, Role.FAILED) and not self._of(generation):
                self._quit_zygote(generation)

    def _quit_zygote(self, generation: Generation) -> None:
        if generation.zygote is Zygote.UP:
            self._out.append(ev.QuitZygote(generation.number))
        elif generation.zygote in (Zygote.LOADING, Zygote.TURNING):
            self._out.append(ev.KillZygote(generation.number))
        elif generation.zygote is Zygote.DOWN:
            generation.zygote, generation.deadline = Zygote.GONE, None
            return
        else:
            return
        generation.zygote, generation.deadline = Zygote.LEAVING, self._now + policy.QUIT_ALLOWANCE

    def _forget_generations(self) -> None:
        for generation in list(self.generations.values()):
            over = generation.role in (Role.OLD, Role.FAILED) or self.server is Server.STOPPING
            if over and generation.zygote is Zygote.GONE and not self._of(generation):
                del self.generations[generation.number]

    def _announce(self) -> None:
        """Say once, whenever the number that is wanted has been reached."""
        booting = any(w.phase is Phase.BOOTING for w in self.workers.values())
        if booting or self.ready != self.target or self._announced == self.target:
            return
        self._say("info", f"all {self.target} workers are ready")
        if self._announced == -1:
            self._out.append(ev.Notify("READY=1"))
        self._announced = self.target

    # ── stop ─────────────────────────────────────────────────────────────────────────────────

    def _reconcile_stop(self) -> None:
        if self.stop_begins > self._now and self.stop is ev.StopMode.GRACEFUL:
            return  # drain_delay: go on accepting while load balancers look away
        if self.listeners_open:
            self.listeners_open = False
            self._out.append(ev.Notify("STOPPING=1"))
            self._out.append(ev.CloseListeners())
        for worker in self.workers.values():
            self._stop_worker(worker)
        for generation in self.generations.values():
            if generation.zygote is Zygote.LEAVING and self._of(generation):
                generation.deadline = None  # it reaps its last workers
            elif generation.zygote is Zygote.LEAVING and generation.deadline is None:
                generation.deadline = self._now + policy.QUIT_ALLOWANCE
            else:
                self._quit_zygote(generation)
        if not self.workers and all(g.zygote is Zygote.GONE for g in self.generations.values()):
            self.server = Server.DONE
            self._out.append(self.result)

    def _stop_worker(self, worker: Worker) -> None:
        if worker.holds:
            quick = self.stop is not ev.StopMode.GRACEFUL or worker.phase is Phase.BOOTING
            self._drain(worker, final=True, graceful=0.0 if quick else None)
            worker.hurried = quick
        if self.stop is ev.StopMode.KILL and worker.phase is Phase.DRAINING:
            self._kill(worker, Intent.STOP)
        elif self.stop is ev.StopMode.QUICK and worker.phase is Phase.DRAINING and not worker.hurried:
            self._hurry(worker)


def _when(pause: float) -> str:
    return f"in {pause:.1f} s" if pause else "now"
