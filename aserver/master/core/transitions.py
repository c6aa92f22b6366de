"""The phases of workers, zygotes, generations and the server: the table of all steps, and a function for each.

Pure. A phase and its deadline are assigned here and nowhere else, together with the command that carries the step out,
so that the model and the processes never part. A step that is not in the table raises WrongTransition. Whether a step
should be taken is decided by `machine`, `reconcile`, `generations` and `shutdown`.

docs/states.md is made from the table (`aserver.command.states_page`); tests/unit/master/core/test_transitions.py takes
every row.
"""

from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from aserver.errors import ExitCode
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core.limits import ABORT_ALLOWANCE, FORK_TIMEOUT, KILL_ALLOWANCE, QUIT_ALLOWANCE
from aserver.master.core.model import Generation, Intent, Model, Role, ServerPhase, Worker, WorkerPhase, ZygotePhase

AnyPhase = WorkerPhase | ZygotePhase | Role | ServerPhase
P = TypeVar("P", WorkerPhase, ZygotePhase, Role, ServerPhase)


class Row(NamedTuple):
    """A line of docs/states.md: `before` is None if there was nothing before, `after` if nothing is left."""

    before: AnyPhase | None
    event: str
    after: AnyPhase | None
    deadline: str = ""


_W, _Z, _S = WorkerPhase, ZygotePhase, ServerPhase
_LEAVE = "`lifespan_shutdown_timeout` + 2 s"
_ABORTED = "SIGABRT at once, SIGKILL after 1 s, again every 2 s"
_KILLED = "SIGKILL at once, again every 2 s"
_ENDED = "its last worker and its zygote are gone"

WORKER = (
    Row(None, "an order to fork", _W.BOOTING, "`boot_timeout`, counted from before the fork"),
    Row(_W.BOOTING, "it reports that it is ready", _W.READY, "none; its heartbeat is watched"),
    Row(_W.BOOTING, "it reports that its boot failed", _W.FAILED, f"{_LEAVE}: SIGKILL"),
    Row(_W.BOOTING, "its deadline passes", _W.FAILED, _ABORTED),
    Row(_W.BOOTING, "it breaks the protocol of its channel", _W.FAILED, _KILLED),
    Row(_W.BOOTING, "it is not wanted any more (scaled down, an older generation, stop)", _W.DRAINING, _LEAVE),
    Row(_W.FAILED, "its deadline passes, it breaks the protocol, or a third stop", _W.FAILED, _KILLED),
    Row(_W.READY, "it asked to be recycled, and `min_lifetime` is over", _W.RECYCLING, "none; it serves on"),
    Row(_W.READY, "it breaks the protocol of its channel", _W.RECYCLING, "none, whatever `min_lifetime`; it serves on"),
    Row(_W.READY, "it is not wanted any more", _W.DRAINING, f"`graceful_timeout` + {_LEAVE}"),
    Row(_W.READY, "it is silent for `hang_timeout`", _W.KILLING, _ABORTED),
    Row(
        _W.RECYCLING,
        "its replacement is ready, or `max_unavailable` lets it go first; stop",
        _W.DRAINING,
        f"`graceful_timeout` + {_LEAVE}",
    ),
    Row(_W.RECYCLING, "it breaks the protocol of its channel", _W.RECYCLING, "none; it serves on"),
    Row(_W.RECYCLING, "its replacement has broken code (`keep_serving`)", _W.READY, "none; it serves on"),
    Row(_W.RECYCLING, "it is silent for `hang_timeout`", _W.KILLING, _ABORTED),
    Row(_W.DRAINING, "it reports that it is ready, which crossed the order", _W.DRAINING, "`graceful_timeout` later"),
    Row(_W.DRAINING, "a stop, while it drains for another reason", _W.DRAINING, "unchanged; it is told once more"),
    Row(_W.DRAINING, "a second stop", _W.DRAINING, f"{_LEAVE}, or sooner"),
    Row(_W.DRAINING, "it is silent for `hang_timeout`", _W.KILLING, _ABORTED),
    Row(_W.DRAINING, "its deadline passes, or a third stop", _W.KILLING, _KILLED),
    Row(_W.KILLING, "its deadline passes", _W.KILLING, _KILLED),
)
ZYGOTE = (
    Row(_Z.DOWN, "its generation begins, or its deadline passes", _Z.LOADING, "`boot_timeout`"),
    Row(_Z.DOWN, "it is not wanted any more", _Z.GONE),
    Row(_Z.LOADING, "it has loaded", _Z.UP, "none"),
    Row(_Z.LOADING, "it holds what does not survive a fork", _Z.TURNING, "as LOADING"),
    Row(_Z.LOADING, "its deadline passes", _Z.LOADING, _ABORTED),
    Row(_Z.LOADING, "it is not wanted any more", _Z.LEAVING, "SIGKILL at once, and after 5 s again"),
    Row(_Z.LOADING, "it died, and its generation is current", _Z.DOWN, "a pause, then another one starts"),
    Row(_Z.LOADING, "it died otherwise", _Z.GONE),
    Row(_Z.TURNING, "it died", _Z.LOADING, "`boot_timeout`: SIGKILL; the new one is lazy"),
    Row(_Z.TURNING, "its deadline passes", _Z.TURNING, _KILLED),
    Row(_Z.TURNING, "it is not wanted any more", _Z.LEAVING, "SIGKILL at once, and after 5 s again"),
    Row(_Z.UP, "an order to fork", _Z.UP, "10 s, anew with each answer while another is due: SIGKILL"),
    Row(_Z.UP, "its deadline passes, or a worker that it has not forked must end", _Z.UP, _KILLED),
    Row(_Z.UP, "no worker needs it; stop", _Z.LEAVING, "5 s: SIGKILL"),
    Row(_Z.UP, "it died, and its generation is current, or the first", _Z.DOWN, "a pause, then another one starts"),
    Row(_Z.UP, "it died otherwise", _Z.GONE),
    Row(_Z.LEAVING, "stop", _Z.LEAVING, "none while it has workers, then 5 s (after a third stop 2 s): SIGKILL"),
    Row(_Z.LEAVING, "its deadline passes", _Z.LEAVING, _KILLED),
    Row(_Z.LEAVING, "it died", _Z.GONE),
)
GENERATION = (
    Row(None, "start, SIGHUP", Role.CANDIDATE),
    Row(Role.CANDIDATE, "a worker of it is ready (in a reload: for `canary_time`)", Role.CURRENT),
    Row(Role.CANDIDATE, "it or its canary fails, while there is a current one", Role.FAILED),
    Row(Role.CURRENT, "the next one is promoted", Role.OLD),
    Row(Role.OLD, _ENDED, None),
    Row(Role.FAILED, _ENDED, None),
)
SERVER = (
    Row(_S.BOOTING, "the first worker is ready: listen", _S.SERVING),
    Row(_S.BOOTING, "no worker can boot; stop", _S.STOPPING, "none"),
    Row(_S.SERVING, "SIGTERM and its like", _S.STOPPING, "`drain_delay`, if the stop is graceful: workers leave"),
    Row(_S.STOPPING, "another stop, which is quicker", _S.STOPPING, "none"),
    Row(_S.STOPPING, "every worker and zygote is gone", _S.DONE),
)
_STEPS = {(row.before, row.after) for row in (*WORKER, *ZYGOTE, *GENERATION, *SERVER)}


class WrongTransition(Exception):  # noqa: N818  (no failure of the system's: a mistake in this package)
    """A step that the table does not have."""


def _step(subject: object, before: P, after: P) -> P:
    if (before, after) not in _STEPS:
        raise WrongTransition(f"{subject}: no step leads from {before.name} to {after.name}")
    return after


# ── workers ──────────────────────────────────────────────────────────────────────────────────


def fork(model: Model, generation: Generation, slot: int, why: str) -> None:
    """Fork a worker for `slot`, because of `why`; the caller has asked `can_fork`."""
    model.serials += 1
    # The deadline counts from before the fork, so that a hanging import is caught in lazy mode too.
    deadline = model.now + generation.limits.boot_timeout
    worker = Worker(model.serials, slot, generation.number, deadline, began=model.now)
    model.workers[model.serials] = worker
    if generation.deadline is None:
        generation.deadline = model.now + FORK_TIMEOUT
    lifetime = worker.recycle_requests, worker.recycle_seconds = generation.limits.draw_lifetime(model.rng)
    model.say("debug", f"{worker} is forked: {why}", "worker.fork", worker, reason=why)
    model.out.append(msg.Fork(generation.number, model.serials, slot, *lifetime))


def fork_answered(model: Model, worker: Worker) -> None:
    """Its zygote has shown that it lives: the time for the next answer begins."""
    generation = model.generations[worker.generation]
    if generation.zygote is ZygotePhase.UP:
        generation.deadline = model.now + FORK_TIMEOUT if model.unforked(generation) else None


def ready(model: Model, worker: Worker) -> None:
    """The worker serves. If it was told to leave while it booted, its requests get the usual time."""
    if worker.phase is not WorkerPhase.DRAINING:
        worker.phase = _step(worker, worker.phase, WorkerPhase.READY)
        worker.deadline = None
    elif worker.deadline is not None and not worker.hurried:
        worker.deadline += model.limits.graceful_timeout
    worker.ready_at = model.now


def fail_boot(model: Model, worker: Worker, failure: msg.BootFailed) -> None:
    """The worker will never serve; it ends by itself, and its failure is booked when it is gone."""
    worker.phase = _step(worker, worker.phase, WorkerPhase.FAILED)
    worker.failure = failure
    worker.deadline = model.now + model.limits.leave_allowance


def recycle(worker: Worker, reason: str) -> None:
    """The worker serves until its replacement does."""
    worker.phase = _step(worker, worker.phase, WorkerPhase.RECYCLING)
    worker.recycle_reason = reason


def wait_for_debugger(model: Model, worker: Worker) -> None:
    """A debugger has stopped the worker: a deadline that it has waits."""
    if worker.deadline is not None:
        worker.deadline = max(worker.deadline, model.now + KILL_ALLOWANCE)


def stay(worker: Worker) -> None:
    """The worker is not replaced after all."""
    worker.phase = _step(worker, worker.phase, WorkerPhase.READY)
    worker.recycle_reason = ""


def drain(model: Model, worker: Worker, why: str, *, final: bool = False, graceful: float | None = None) -> None:
    """Tell a worker that is `usable` to leave, because of `why`; `graceful` seconds are for its requests.

    A worker that boots has none, and gets no time for them. But it may become ready before the order reaches it, and
    then gets that time after all (`ready`), so the order itself is the same.
    """
    if graceful is None:
        graceful = model.limits.graceful_timeout
    for_requests = 0.0 if worker.phase is WorkerPhase.BOOTING else graceful
    worker.phase = _step(worker, worker.phase, WorkerPhase.DRAINING)
    worker.intent = Intent.LEAVE
    model.say("debug", f"{worker} is told to leave: {why}", "worker.drain", worker, reason=why)
    worker.final = final
    worker.deadline = model.now + for_requests + model.limits.leave_allowance
    order = msg.Drain(worker.serial, final, graceful)
    if worker.pid is None:
        worker.unsent = order  # sent when the process is known
    else:
        model.out.append(order)


def drain_finally(model: Model, worker: Worker, *, at_once: bool) -> None:
    """Tell a draining worker that the server stops: streams and idle connections end, `at_once` its requests too."""
    order = msg.Drain(worker.serial, final=True, graceful=model.limits.graceful_timeout)
    worker.final = True
    if at_once:
        worker.hurried, order = True, replace(order, graceful=0.0)
        worker.deadline = min(worker.deadline or model.now, model.now + model.limits.leave_allowance)
    if worker.unsent is not None:
        worker.unsent = order if at_once else replace(worker.unsent, final=True)
    else:
        model.out.append(order)


def kill(model: Model, worker: Worker, intent: Intent, signal: str = "SIGKILL") -> None:
    """End a worker. If it has not been forked yet, its zygote is killed instead."""
    worker.phase = _step(worker, worker.phase, WorkerPhase.FAILED if worker.boots else WorkerPhase.KILLING)
    worker.intent = intent
    worker.deadline = model.now + (ABORT_ALLOWANCE if signal == "SIGABRT" else KILL_ALLOWANCE)
    note_kill(model, "a worker")
    if worker.pid is not None:
        model.out.append(ev.Kill(worker.serial, signal))
    else:
        kill_zygote(model, model.generations[worker.generation])


def note_kill(model: Model, what: str) -> None:
    """A stop in which something had to be killed ends with its own exit code."""
    if model.server is ServerPhase.STOPPING and model.result.code == ExitCode.OK:
        model.result = ev.Exit(ExitCode.KILLED, f"stopped, but {what} had to be killed")


# ── zygotes ──────────────────────────────────────────────────────────────────────────────────


def _enter(generation: Generation, phase: ZygotePhase, deadline: float | None) -> None:
    generation.zygote = _step(f"the zygote of generation {generation.number}", generation.zygote, phase)
    generation.deadline = deadline


def spawn_zygote(model: Model, generation: Generation) -> None:
    """Start the zygote of a generation that has none."""
    _enter(generation, ZygotePhase.LOADING, model.now + generation.limits.boot_timeout)
    generation.overdue = ""
    model.out.append(ev.SpawnZygote(generation.number, generation.lazy))


def zygote_up(model: Model, generation: Generation) -> None:
    """The zygote can fork; it becomes the deputy of all living workers."""
    _enter(generation, ZygotePhase.UP, None)
    generation.began = model.now
    if model.workers:
        model.out.append(ev.AdoptWorkers(generation.number))


def turn_lazy(generation: Generation) -> None:
    """The zygote leaves; the next zygote does not load the app."""
    _enter(generation, ZygotePhase.TURNING, generation.deadline)
    generation.lazy = True


def zygote_down(model: Model, generation: Generation, pause: float) -> None:
    """The zygote is dead, and another starts after `pause` seconds."""
    _enter(generation, ZygotePhase.DOWN, model.now + pause)


def zygote_gone(generation: Generation) -> None:
    """The zygote is dead, and no other is wanted."""
    _enter(generation, ZygotePhase.GONE, None)


def kill_zygote(model: Model, generation: Generation, signal: str = "SIGKILL") -> None:
    """End a zygote; the workers that it has forked live on."""
    allowance = ABORT_ALLOWANCE if signal == "SIGABRT" else KILL_ALLOWANCE
    _enter(generation, generation.zygote, model.now + allowance)
    order = ev.KillZygote(generation.number, signal)
    if order not in model.out:
        model.out.append(order)


def quit_zygote(model: Model, generation: Generation) -> None:
    """Have the zygote leave, if it lives: none is wanted any more."""
    if generation.zygote is ZygotePhase.DOWN:
        zygote_gone(generation)
    if generation.zygote in (ZygotePhase.LEAVING, ZygotePhase.GONE):
        return
    if generation.zygote is ZygotePhase.UP:
        model.out.append(ev.QuitZygote(generation.number))
    else:
        kill_zygote(model, generation)
    _enter(generation, ZygotePhase.LEAVING, model.now + QUIT_ALLOWANCE)


def await_last_zygote(model: Model, generation: Generation) -> None:
    """Set the deadline of a zygote that leaves in a stop: it may wait for its last workers, then it must go."""
    latest = model.now + (KILL_ALLOWANCE if model.stop is ev.StopMode.KILL else QUIT_ALLOWANCE)
    if model.of(generation):
        generation.deadline = None
    else:
        generation.deadline = latest if generation.deadline is None else min(generation.deadline, latest)


# ── generations and the server ───────────────────────────────────────────────────────────────


def succeed(model: Model, candidate: Generation) -> None:
    """Make the candidate the current generation; the generation before it is old."""
    if (current := model.current) is not None:
        current.role = _step(f"generation {current.number}", current.role, Role.OLD)
    candidate.role = _step(f"generation {candidate.number}", candidate.role, Role.CURRENT)


def fail(candidate: Generation) -> None:
    """The candidate will never serve."""
    candidate.role = _step(f"generation {candidate.number}", candidate.role, Role.FAILED)


def serve(model: Model) -> None:
    """The first worker is ready."""
    model.server = _step("the server", model.server, ServerPhase.SERVING)


def begin_stop(model: Model, mode: ev.StopMode) -> None:
    """Begin the end of the server, or make it quicker; `shutdown` does the rest."""
    if model.stop is None and mode is ev.StopMode.GRACEFUL and model.server is ServerPhase.SERVING:
        model.stop_begins = model.now + model.limits.drain_delay
    else:
        model.stop_begins = min(model.stop_begins, model.now)
    model.stop = max(mode, model.stop or mode)
    model.server = _step("the server", model.server, ServerPhase.STOPPING)
    model.pending = None


def end(model: Model) -> None:
    """Nothing is left to supervise."""
    model.server = _step("the server", model.server, ServerPhase.DONE)
    model.out.append(model.result)
