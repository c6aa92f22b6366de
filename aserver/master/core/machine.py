"""The master's decisions: the next orders to the zygotes and workers.

Pure. `handle(event, now)` applies an event, then compares the processes with the number that is wanted until nothing
is left to order, and returns the orders; `next_deadline()` says when to call again although nothing happened. It never
waits: reload, drain and stop are phases with absolute deadlines in monotonic seconds.

    worker      BOOTING ──ready──> READY ──asked──> RECYCLING ──replacement ready──> DRAINING ──> (gone)
                   └──late, failed──> FAILED ──> (gone)     └──hung──> KILLING <──late──┘
    zygote      LOADING ──> UP ──> LEAVING ──> GONE      UP ──died──> DOWN ──> LOADING
    generation  CANDIDATE ──a worker of it is ready──> CURRENT ──> OLD      CANDIDATE ──> FAILED
    server      BOOTING ──first worker ready──> SERVING ──> STOPPING ──> DONE

docs/states.md has every step. The modules, each pure:

    events       the input and the output    machine      an event changes the model
    model        workers, generations        transitions  every step, its deadline and its command
    reconcile    orders what is missing      generations  begun, promoted, failed; reloads to their end
    shutdown     how the server ends         limits, explain      numbers and pauses, sentences

Rules an editor must keep (tests/stateful holds them under lost, doubled and reordered events):
* a single Drain per worker; no order to a worker that is gone; an event for an unknown serial changes nothing;
* never more than `workers + max_surge` processes are forked for (a reload's canary may always come on top of
  `workers`, or a reload would have to end a worker first); never fewer ready than `workers - max_unavailable` by our
  own doing;
* nothing old is touched before a worker of the new generation serves;
* a canary is no other worker's replacement before its generation is current;
* a stop leads to Exit within `graceful_timeout` + `leave_allowance` + a kill allowance, plus QUIT_ALLOWANCE if a
  zygote does not answer, from any state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from aserver.errors import ExitCode
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core import generations, limits, reconcile, shutdown, transitions
from aserver.master.core.explain import explain_exit
from aserver.master.core.limits import when
from aserver.master.core.model import Generation, Intent, Model, Role, ServerPhase, Worker, WorkerPhase, ZygotePhase


@dataclass(slots=True)
class Master(Model):
    """The whole state, `Master(limits, rng)`, and its entry points, with `next_deadline`."""

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Apply `event` at `now`; the orders come in the order in which they must be carried out."""
        self.now = max(now, self.now)
        if self.server is not ServerPhase.DONE:
            self._apply(event)
            reconcile.reconcile(self)
        orders, self.out = self.out, []
        return orders

    def _apply(self, event: Any) -> None:
        """Call the handler of `event`; a worker or generation that is not known changes nothing."""
        handler = HANDLERS[type(event)]
        if hasattr(event, "serial"):
            subject: Worker | Generation | None = self.workers.get(event.serial)
        elif hasattr(event, "generation"):
            subject = self.generations.get(event.generation)
        else:
            handler(self, event)
            return
        if subject is not None:
            handler(self, subject, event)


# ── zygotes ──────────────────────────────────────────────────────────────────────────────────


def on_started(model: Model, _event: ev.Started) -> None:
    """The listeners are bound."""
    if not model.generations and model.server is ServerPhase.BOOTING:
        model.target = model.limits.workers
        generations.begin(model, model.limits)


def on_loaded(model: Model, generation: Generation, event: msg.Loaded) -> None:
    """The zygote can fork."""
    if generation.zygote is ZygotePhase.LOADING:
        how = "each worker loads the app" if event.lazy else f"{event.interface} app loaded"
        text = f"the zygote of generation {generation.number} is up after {event.seconds:.2f} s: {how}"
        model.say("info", text, "zygote.up", generation)
        generation.spawns.succeeded()
        transitions.zygote_up(model, generation)


def on_unforkable(model: Model, generation: Generation, _event: msg.Unforkable) -> None:
    """The zygote leaves, and a lazy zygote takes its place; but a lazy zygote fails, since the next would, too."""
    if generation.zygote is not ZygotePhase.LOADING:
        return
    if generation.lazy:
        reason = "even a lazy zygote holds what does not survive a fork"
        on_load_failed(model, generation, msg.LoadFailed(generation.number, ExitCode.BOOT, reason, ""))
    else:
        transitions.turn_lazy(generation)


def on_load_failed(model: Model, generation: Generation, event: msg.LoadFailed) -> None:
    """The zygote could not load the app."""
    if generation.zygote is not ZygotePhase.LOADING or model.over:
        return
    if generation.role is Role.CANDIDATE:
        generations.candidate_failed(model, generation, event.exit_code, event.reason, event.detail)
    elif generation.role is Role.CURRENT:
        text = f"generation {generation.number}: a new zygote could not load the app: {event.reason}; "
        text += f"{model.tally}, and a reload with working code is due"
        model.say("error", text, "zygote.failed", generation, reason=event.reason, detail=event.detail)


def on_zygote_gone(model: Model, generation: Generation, event: ev.ZygoteGone) -> None:
    """The process has ended; the workers that it had forked serve on, the orders to fork died with it."""
    if generation.zygote in (ZygotePhase.DOWN, ZygotePhase.GONE):
        return
    for worker in model.unforked(generation):
        del model.workers[worker.serial]
    how = generation.overdue or event.how
    before = generation.zygote
    if model.over or before is ZygotePhase.LEAVING or generation.role in (Role.OLD, Role.FAILED):
        transitions.zygote_gone(generation)
    elif before is ZygotePhase.TURNING:
        transitions.spawn_zygote(model, generation)
    elif generation.role is Role.CANDIDATE and (before is ZygotePhase.LOADING or model.current is not None):
        reason = f"the zygote of generation {generation.number} {how}"
        transitions.zygote_gone(generation)
        generations.candidate_failed(model, generation, ExitCode.BOOT, reason, event.detail)
    else:
        transitions.zygote_down(model, generation, _pause_before_another(model, generation, before, how, event.detail))


def _pause_before_another(model: Model, generation: Generation, before: ZygotePhase, how: str, detail: str) -> float:
    subject = f"the zygote of generation {generation.number} {how}"
    if generation.role is Role.CANDIDATE:
        generations.first_boot_failed(model, generation, model.now, ev.Exit(ExitCode.BOOT, subject, detail))
        return max(0.0, generation.backoff.not_before - model.now)
    if before is ZygotePhase.LOADING:
        pause = generation.spawns.boot_failed(model.now, model.rng)
    else:
        pause = generation.spawns.died(model.now, model.rng, model.now - generation.began)
    text = f"{subject}; its workers serve on, another zygote starts {when(pause)}"
    model.say("error", text, "zygote.died", generation, reason=how, detail=detail)
    return pause


# ── workers ──────────────────────────────────────────────────────────────────────────────────


def on_forked(model: Model, worker: Worker, event: msg.Forked) -> None:
    """The process exists; orders that were given before it did are sent now."""
    if worker.pid is not None:
        return
    worker.pid = event.pid
    transitions.fork_answered(model, worker)
    if worker.killed:
        model.out.append(ev.Kill(worker.serial, "SIGKILL"))
    elif worker.unsent is not None:
        model.out.append(worker.unsent)
    worker.unsent = None


def on_fork_failed(model: Model, worker: Worker, event: msg.ForkFailed) -> None:
    """No process came to be."""
    if worker.pid is None:
        del model.workers[worker.serial]
        transitions.fork_answered(model, worker)
        generations.boot_failed(model, worker, ExitCode.BOOT, f"fork failed: {event.reason}", "")


def on_ready(model: Model, worker: Worker, _event: msg.Ready) -> None:
    """The worker serves; the first worker of all opens the server."""
    booted = worker.phase is WorkerPhase.BOOTING
    if booted or (worker.phase is WorkerPhase.DRAINING and worker.ready_at is None):
        transitions.ready(model, worker)
    if not booted:
        return
    generation = model.generations[worker.generation]
    generations.booted(model, generation)
    model.say("info", f"{worker} is ready after {model.now - worker.began:.2f} s", "worker.ready", worker)
    if model.server is ServerPhase.BOOTING:
        transitions.serve(model)
        generations.promote(model, generation)


def on_boot_failed(model: Model, worker: Worker, event: msg.BootFailed) -> None:
    """The worker will never serve; its failure is booked when the process is gone, which must be soon."""
    if worker.phase is WorkerPhase.BOOTING:
        transitions.fail_boot(model, worker, event)


def on_recycle_asked(_model: Model, worker: Worker, event: msg.RecycleAsked) -> None:
    """The worker asks to be recycled. It may ask before `ready` is heard, and asks only once."""
    if worker.usable and not worker.recycle_reason:
        worker.recycle_reason = event.reason


def on_breached(model: Model, worker: Worker, event: ev.Breached) -> None:
    """Recycle a worker that serves, at once: the requests of its clients are not to blame.

    A worker that boots has no clients, and is killed. A canary that breaks the protocol fails its generation.
    """
    reason = f"it broke the protocol: {event.reason}"
    follows = ""
    if worker.boots and not worker.killed:
        worker.failure = msg.BootFailed(worker.serial, ExitCode.BOOT, reason, "")
        follows = "; it is killed"
        transitions.kill(model, worker, Intent.OVERRAN)
    elif worker.serves:
        transitions.recycle(worker, reason)
        follows = "; it serves until its replacement does"
    text = f"{worker}: {reason}; nothing that it says counts any more{follows}"
    model.say("error", text, "worker.breached", worker, reason=reason)
    generation = model.generations[worker.generation]
    if not worker.serves or model.over:
        return
    if generation.role is Role.CANDIDATE and model.current is not None:
        generations.candidate_failed(model, generation, ExitCode.BOOT, f"{worker}: {reason}", "")
    elif generation.role is Role.CURRENT:
        assert worker.ready_at is not None
        generation.backoff.died(model.now, model.rng, model.now - worker.ready_at)


def on_died(model: Model, worker: Worker, event: ev.Died) -> None:
    """The process has ended: say why, and which worker takes its place."""
    del model.workers[worker.serial]
    generation = model.generations[worker.generation]
    if worker.pid is None:
        transitions.fork_answered(model, worker)
    how = explain_exit(event.code, event.signal, worker.intent, out_of_memory=event.out_of_memory)
    if (failure := worker.failure) is not None:
        generations.boot_failed(model, worker, failure.exit_code, failure.reason, failure.detail)
    elif worker.phase is WorkerPhase.DRAINING and (event.code == 0 or _unreported(model, event)):
        model.say("info", f"{worker} has left after {model.now - worker.began:.1f} s", "worker.left", worker)
    elif model.over or worker.intent in (Intent.LEAVE, Intent.OVERRAN):
        model.say("warning", f"{worker} {how}", "worker.died", worker, reason=how)
    elif worker.ready_at is None:
        code = ExitCode.APP_LOAD if event.code == ExitCode.APP_LOAD else ExitCode.BOOT
        generations.boot_failed(model, worker, code, f"it {how}", "")
    elif generation.role is Role.CANDIDATE:
        model.say("error", f"{worker} {how}; it was the canary", "worker.died", worker, reason=how)
        generations.candidate_failed(model, generation, ExitCode.BOOT, f"{worker} {how}", "")
    else:
        _crashed(model, generation, worker, how)


def _unreported(model: Model, event: ev.Died) -> bool:
    """Under `reload` a zygote may be importing packages, and reports when it has done so."""
    return model.limits.reload and event.code is None and event.signal is None


def _crashed(model: Model, generation: Generation, worker: Worker, how: str) -> None:
    assert worker.ready_at is not None
    pause = 0.0
    if generation.role is Role.CURRENT:
        pause = generation.backoff.died(model.now, model.rng, model.now - worker.ready_at)
    others = [w for w in model.workers.values() if w.slot == worker.slot and w.usable]
    if worker.slot > model.target:
        follows = "its place is not wanted any more"
    elif any(w.serves for w in others):
        follows = "its replacement serves already"
    else:
        follows = "its replacement boots already" if others else f"a new one starts {when(pause)}"
    text = f"{worker} {how}; {model.ready} of {model.target} serve, {follows}"
    model.say("error", text, "worker.died", worker, reason=how)


def on_beats(model: Model, event: ev.Beats) -> None:
    """End the workers that are silent, unless a debugger has stopped them.

    If this look itself came late, every worker's clock starts anew.
    """
    if model.beats_at is None or model.now - model.beats_at > 2 * limits.BEAT_PERIOD:
        model.clock_restart = model.now
    model.beats_at = model.now
    for serial, beat in event.beats.items():
        worker = model.workers.get(serial)
        if worker is not None and serial in event.debugged and not model.over:
            transitions.wait_for_debugger(model, worker)
            continue
        if worker is None or worker.ready_at is None or worker.phase is WorkerPhase.KILLING:
            continue
        silent = model.now - max(beat, worker.ready_at, model.clock_restart)
        limit = model.limits.hang_timeout
        if limit and silent >= limit:
            still = f"its event loop stands still for {silent:.1f} s (hang_timeout is {limit:g} s)"
            model.say("error", f"{worker}: {still}; it is aborted and replaced", "worker.hung", worker, reason=still)
            transitions.kill(model, worker, Intent.HUNG, "SIGABRT")  # faulthandler writes the stacks once more
        elif model.limits.slow_callback and silent >= model.limits.slow_callback and worker.reported_beat != beat:
            worker.reported_beat = beat
            text = f"{worker}: its event loop has stood still for {silent:.1f} s; its stacks are dumped"
            model.say("debug", text, "worker.slow", worker)
            model.out.append(ev.DumpStacks(serial, silent))


def on_tick(_model: Model, _event: ev.Tick) -> None:
    """Nothing has happened but that time has passed."""


# ── the operator ─────────────────────────────────────────────────────────────────────────────


def on_reload_requested(model: Model, event: ev.ReloadRequested) -> None:
    """Note the request; the latest wins, and begins when no other reload is under way."""
    if model.over:
        generations.refuse(model, "reload", f"reload ({event.why}) refused", "the server is stopping", event.tickets)
        return
    if (before := model.pending) is not None:  # its end answers both
        tickets = (*before.tickets, *event.tickets)
        event = replace(event, upgrade=event.upgrade or before.upgrade, tickets=tickets)
    model.pending = event


def on_code_changed(model: Model, event: ev.CodeChanged) -> None:
    """Replace every worker that is wanted; a worker that boots may have read files of before."""
    source = model.current or model.candidate
    if model.over or source is None:
        return
    source.backoff.succeeded()  # a failure of the code before counts no more
    source.failure = None
    for worker in model.of(source):
        if worker.phase is WorkerPhase.BOOTING:
            transitions.drain(model, worker, f"it boots, and {event.why}")
        elif worker.phase is WorkerPhase.READY:
            transitions.recycle(worker, event.why)
    model.say("info", f"{event.why}: the new code is loaded", "code.changed", reason=event.why)


def on_scale(model: Model, event: ev.Scale) -> None:
    """Another number of workers. `delta` never leads to 0 workers, which only WINCH asks for."""
    if model.over or not model.generations:
        generations.refuse(model, "scale", "scaling refused", "the server stops", event.tickets)
        return
    relative = max(min(1, model.target), model.target + event.delta)
    wanted = relative if event.to is None else max(0, event.to)
    model.parked |= wanted == 0
    generations.scale(model, wanted, event.tickets)


def on_recycle(model: Model, event: ev.Recycle) -> None:
    """Replace the workers of a slot that serve, whatever their age."""
    for worker in model.workers.values():
        if worker.slot == event.slot and worker.phase is WorkerPhase.READY and not model.over:
            transitions.recycle(worker, event.why)
            text = f"{worker} is to be recycled: {event.why}; it serves until its replacement does"
            model.say("info", text, "worker.recycle", worker, reason=event.why)


#: An event of a worker has its `serial`, an event of a zygote its `generation`; their handlers are given the subject.
HANDLERS: dict[type, Callable[..., None]] = {
    msg.Forked: on_forked,
    msg.ForkFailed: on_fork_failed,
    msg.Ready: on_ready,
    msg.BootFailed: on_boot_failed,
    msg.RecycleAsked: on_recycle_asked,
    ev.Breached: on_breached,
    ev.Died: on_died,
    msg.Loaded: on_loaded,
    msg.Unforkable: on_unforkable,
    msg.LoadFailed: on_load_failed,
    ev.ZygoteGone: on_zygote_gone,
    ev.Started: on_started,
    ev.Beats: on_beats,
    ev.StopRequested: shutdown.on_stop_requested,
    ev.ReloadRequested: on_reload_requested,
    ev.CodeChanged: on_code_changed,
    ev.Scale: on_scale,
    ev.Recycle: on_recycle,
    ev.Tick: on_tick,
}
