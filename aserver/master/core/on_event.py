"""What happened, and what it means: one function per event of the processes, each changing the picture it concerns.

Pure. Events may be late, doubled or lost, so each asks first whether it still fits; one about an unknown serial or
generation changes nothing. What is to be done about the new picture is decided afterwards, by `plan` and `stop`.
"""

from aserver.errors import ExitCode
from aserver.master.core import events as ev
from aserver.master.core import generations, policy
from aserver.master.core.model import Fleet, Generation, Phase, Role, Server, Worker, Zygote, when
from aserver.master.core.policy import Intent
from aserver.master.core.transitions import kill, say, spawn_zygote

# ── zygotes ──────────────────────────────────────────────────────────────────────────────────


def on_started(fleet: Fleet) -> None:
    """The listeners are bound."""
    if not fleet.generations and fleet.server is Server.BOOTING:
        fleet.target = fleet.limits.workers
        generations.begin(fleet, fleet.limits)


def on_zygote_up(fleet: Fleet, event: ev.ZygoteUp) -> None:
    """It can fork; it becomes the deputy of everybody who lives (trap 24)."""
    generation = fleet.generations.get(event.generation)
    if generation is None or generation.zygote is not Zygote.LOADING:
        return
    generation.zygote, generation.deadline = Zygote.UP, None
    generation.began = fleet.now
    generation.spawns.succeeded()
    if fleet.workers:
        fleet.out.append(ev.AdoptWorkers(generation.number))


def on_zygote_unforkable(fleet: Fleet, event: ev.ZygoteUnforkable) -> None:
    """It leaves, and a lazy one takes its place; a lazy one that says so would say so for ever."""
    generation = fleet.generations.get(event.generation)
    if generation is None or generation.zygote is not Zygote.LOADING:
        return
    if generation.lazy:
        reason = "even a lazy zygote holds what does not survive a fork"
        on_zygote_failed(fleet, ev.ZygoteFailed(generation.number, ExitCode.BOOT, reason))
        return
    generation.lazy = True
    generation.zygote = Zygote.TURNING


def on_zygote_failed(fleet: Fleet, event: ev.ZygoteFailed) -> None:
    """It could not load the app."""
    generation = fleet.generations.get(event.generation)
    if generation is None or generation.zygote is not Zygote.LOADING or fleet.over:
        return
    if generation.role is Role.CANDIDATE:
        generations.candidate_failed(fleet, generation, event.exit_code, event.reason, event.detail)
    elif generation.role is Role.CURRENT:
        say(
            fleet,
            "error",
            f"generation {generation.number}: a new zygote could not load the app: {event.reason}; "
            f"{fleet.ready} of {fleet.target} workers serve on, a reload with working code is due",
            event.detail,
        )


def on_zygote_gone(fleet: Fleet, event: ev.ZygoteGone) -> None:
    """The process has ended; the workers that it had forked serve on, the orders to fork died with it."""
    generation = fleet.generations.get(event.generation)
    if generation is None or generation.zygote in (Zygote.DOWN, Zygote.GONE):
        return
    for worker in fleet.unforked(generation):
        del fleet.workers[worker.serial]
    how = generation.overdue or event.how
    before, generation.zygote, generation.deadline = generation.zygote, Zygote.GONE, None
    if fleet.over or before is Zygote.LEAVING or generation.role in (Role.OLD, Role.FAILED):
        return
    if before is Zygote.TURNING:
        spawn_zygote(fleet, generation)
    elif generation.role is Role.CANDIDATE and (before is Zygote.LOADING or fleet.current is not None):
        reason = f"the zygote of generation {generation.number} {how}"
        generations.candidate_failed(fleet, generation, ExitCode.BOOT, reason, "")
    else:
        generation.zygote = Zygote.DOWN
        generation.deadline = fleet.now + _pause_before_another(fleet, generation, before, how)


def _pause_before_another(fleet: Fleet, generation: Generation, before: Zygote, how: str) -> float:
    subject = f"the zygote of generation {generation.number} {how}"
    if generation.role is Role.CANDIDATE:
        generations.first_boot_failed(fleet, generation, fleet.now, ev.Exit(ExitCode.BOOT, subject))
        return max(0.0, generation.backoff.not_before - fleet.now)
    if before is Zygote.LOADING:
        pause = generation.spawns.boot_failed(fleet.now)
    else:
        pause = generation.spawns.died(fleet.now, fleet.now - generation.began)
    say(fleet, "error", f"{subject}; its workers serve on, another zygote starts {when(pause)}")
    return pause


# ── workers ──────────────────────────────────────────────────────────────────────────────────


def on_forked(fleet: Fleet, event: ev.Forked) -> None:
    """The process exists, and hears what was decided about it meanwhile."""
    worker = fleet.workers.get(event.serial)
    if worker is None or worker.pid is not None:
        return
    worker.pid = event.pid
    _fork_answered(fleet, worker)
    if worker.phase is Phase.KILLING:
        fleet.out.append(ev.Kill(worker.serial, "SIGKILL"))
    elif worker.unsent is not None:
        fleet.out.append(worker.unsent)
    worker.unsent = None


def _fork_answered(fleet: Fleet, worker: Worker) -> None:
    """Its zygote has shown that it lives: the time for the next answer begins."""
    generation = fleet.generations[worker.generation]
    if generation.zygote is Zygote.UP:
        more = bool(fleet.unforked(generation))
        generation.deadline = fleet.now + policy.FORK_TIMEOUT if more else None


def on_fork_failed(fleet: Fleet, event: ev.ForkFailed) -> None:
    """No process came to be."""
    worker = fleet.workers.get(event.serial)
    if worker is not None and worker.pid is None:
        del fleet.workers[worker.serial]
        _fork_answered(fleet, worker)
        generations.boot_failed(fleet, worker, ExitCode.BOOT, f"fork failed: {event.reason}", "")


def on_ready(fleet: Fleet, event: ev.Ready) -> None:
    """It serves; the first one of all opens the server."""
    worker = fleet.workers.get(event.serial)
    if worker is None or worker.failure is not None:
        return
    if worker.phase is Phase.DRAINING and worker.ready_at is None:
        # Told to leave while it booted, but it served before it heard of it: its requests get the usual time.
        worker.ready_at = fleet.now
        if worker.deadline is not None and not worker.hurried:
            worker.deadline += fleet.limits.graceful_timeout
    if worker.phase is not Phase.BOOTING:
        return
    worker.phase, worker.deadline, worker.ready_at = Phase.READY, None, fleet.now
    generation = fleet.generations[worker.generation]
    generation.backoff.succeeded()
    say(fleet, "info", f"{worker} is ready after {fleet.now - worker.began:.2f} s")
    if fleet.server is Server.BOOTING:
        fleet.server = Server.SERVING
        fleet.out.append(ev.StartListening())
        generations.promote(fleet, generation)


def on_boot_failed(fleet: Fleet, event: ev.BootFailed) -> None:
    """It will never serve; that is acted upon when the process is gone, which must be soon."""
    worker = fleet.workers.get(event.serial)
    if worker is not None and worker.phase is Phase.BOOTING and worker.failure is None:
        worker.failure = event
        worker.deadline = fleet.now + fleet.limits.leave_allowance


def on_retire_asked(fleet: Fleet, event: ev.RetireAsked) -> None:
    """It is due. It may ask before `ready` is heard, and asks only once."""
    worker = fleet.workers.get(event.serial)
    if worker is not None and worker.holds and not worker.due:
        worker.due = event.reason


def on_breached(fleet: Fleet, event: ev.Breached) -> None:
    """It is replaced like one that is due, at once: the requests of its clients are not to blame.

    While it boots it serves nobody, and is killed. A canary that does this fails its generation.
    """
    worker = fleet.workers.get(event.serial)
    if worker is None:
        return
    reason = f"it broke the protocol: {event.reason}"
    follows = ""
    if worker.phase is Phase.BOOTING:
        worker.failure = ev.BootFailed(worker.serial, ExitCode.BOOT, reason)
        follows = "; it is killed"
        kill(fleet, worker, Intent.OVERRAN)
    elif worker.serves:
        worker.phase, worker.due = Phase.RETIRING, reason
        follows = "; it serves until its replacement does"
    say(fleet, "error", f"{worker}: {reason}; nothing that it says counts any more{follows}")
    generation = fleet.generations[worker.generation]
    if not worker.serves or fleet.over:
        return
    if generation.role is Role.CANDIDATE and fleet.current is not None:
        generations.candidate_failed(fleet, generation, ExitCode.BOOT, f"{worker}: {reason}", "")
    elif generation.role is Role.CURRENT:
        assert worker.ready_at is not None
        generation.backoff.died(fleet.now, fleet.now - worker.ready_at)


def on_died(fleet: Fleet, event: ev.Died) -> None:
    """The process has ended: say why, and what follows."""
    worker = fleet.workers.pop(event.serial, None)
    if worker is None:
        return
    generation = fleet.generations[worker.generation]
    if worker.pid is None:
        _fork_answered(fleet, worker)
    how = policy.explain_exit(event.code, event.signal, worker.intent, out_of_memory=event.out_of_memory)
    if worker.failure is not None:
        failure = worker.failure
        generations.boot_failed(fleet, worker, failure.exit_code, failure.reason, failure.detail)
    elif worker.phase is Phase.DRAINING and event.code == 0:
        say(fleet, "info", f"{worker} has left after {fleet.now - worker.began:.1f} s")
    elif fleet.over or worker.intent in (Intent.LEAVE, Intent.OVERRAN):
        say(fleet, "warning", f"{worker} {how}")
    elif worker.ready_at is None:
        code = ExitCode.APP_LOAD if event.code == ExitCode.APP_LOAD else ExitCode.BOOT
        generations.boot_failed(fleet, worker, code, f"it {how}", "")
    elif generation.role is Role.CANDIDATE:
        generations.candidate_failed(fleet, generation, ExitCode.BOOT, f"{worker} {how}", "")
    else:
        _crashed(fleet, generation, worker, how)


def _crashed(fleet: Fleet, generation: Generation, worker: Worker, how: str) -> None:
    assert worker.ready_at is not None
    pause = 0.0
    if generation.role is Role.CURRENT:
        pause = generation.backoff.died(fleet.now, fleet.now - worker.ready_at)
    taken = worker.slot > fleet.target or any(w.slot == worker.slot and w.holds for w in fleet.workers.values())
    follows = "its replacement is there already" if taken else f"a new one starts {when(pause)}"
    say(fleet, "error", f"{worker} {how}; {fleet.ready} of {fleet.target} serve, {follows}")


def on_beats(fleet: Fleet, event: ev.Beats) -> None:
    """Look who is silent. If this look itself came late, everybody's clock starts anew."""
    if fleet.beats_at is None or fleet.now - fleet.beats_at > 2 * policy.BEAT_PERIOD:
        fleet.clock_restart = fleet.now
    fleet.beats_at = fleet.now
    for serial, beat in event.beats.items():
        worker = fleet.workers.get(serial)
        if worker is None or worker.ready_at is None or worker.phase is Phase.KILLING:
            continue
        silent = fleet.now - max(beat, worker.ready_at, fleet.clock_restart)
        limit = fleet.limits.hang_timeout
        if limit and silent >= limit:
            still = f"its event loop stands still for {silent:.1f} s (hang_timeout is {limit:g} s)"
            say(fleet, "error", f"{worker}: {still}; it is aborted and replaced")
            kill(fleet, worker, Intent.HUNG, "SIGABRT")  # faulthandler writes the stacks once more
        elif fleet.limits.slow_callback and silent >= fleet.limits.slow_callback and worker.reported_beat != beat:
            worker.reported_beat = beat
            fleet.out.append(ev.DumpStacks(serial, silent))


# ── the operator ─────────────────────────────────────────────────────────────────────────────


def on_reload_requested(fleet: Fleet, event: ev.ReloadRequested) -> None:
    """Noted; the latest one wins, and it begins when no other is under way."""
    if fleet.over:
        say(fleet, "warning", f"reload ({event.why}) refused: the server is stopping")
        return
    fleet.pending = event


def on_scale(fleet: Fleet, event: ev.Scale) -> None:
    """Another number of workers; fewer by one never means none, which only WINCH asks for."""
    if fleet.over or not fleet.generations:
        return
    relative = max(min(1, fleet.target), fleet.target + event.delta)
    wanted = relative if event.to is None else max(0, event.to)
    if wanted != fleet.target:
        say(fleet, "info", f"scaling from {fleet.target} to {wanted} workers")
        fleet.target = wanted
