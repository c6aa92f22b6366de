"""From what is to what should be: compares the picture with the wish and orders what is missing.

Pure. Runs after every event, in one order: first what ran out of time, then the generations, then the slots. It
remembers nothing of its own, so an event that was lost costs at most the time until the next deadline.
"""

from aserver.master.core import events as ev
from aserver.master.core import generations, shutdown
from aserver.master.core.model import Fleet, Generation, Phase, Role, Server, Worker, Zygote, exhausted
from aserver.master.core.policy import Intent
from aserver.master.core.transitions import (
    drain,
    fork,
    kill,
    kill_zygote,
    note_violence,
    quit_zygote,
    say,
    spawn_zygote,
)


def reconcile(fleet: Fleet) -> None:
    """Order whatever the picture calls for at `fleet.now`, until nothing is left to order."""
    orders = -1
    while orders != len(fleet.out):
        # An order may call for another (a reload that waited for the promotion of this one): what is not ordered now
        # would wait for the next event, for a deadline that has passed is nobody's alarm.
        orders = len(fleet.out)
        _reconcile_once(fleet)


def _reconcile_once(fleet: Fleet) -> None:
    _expire_workers(fleet)
    _expire_zygotes(fleet)
    _end_first_boot(fleet)
    if not fleet.over:
        _start_pending_reload(fleet)
        _try_candidate(fleet)
        _mark_due(fleet)
        _fill_slots(fleet)
        _shrink(fleet)
        _replace_outgoing(fleet)
        _let_generations_go(fleet)
        _announce(fleet)
    elif fleet.server is Server.STOPPING:
        shutdown.proceed(fleet)
    _forget_generations(fleet)


# ── what ran out of time ─────────────────────────────────────────────────────────────────────


def _expire_workers(fleet: Fleet) -> None:
    for worker in fleet.workers.values():
        if worker.deadline is None or worker.deadline > fleet.now:
            continue
        if worker.phase is Phase.KILLING:
            kill(fleet, worker, worker.intent)  # SIGABRT was not enough, or the kernel is slow: again
        elif worker.phase is Phase.DRAINING or worker.failure is not None:
            say(fleet, "error", f"{worker} did not leave in time; it is killed")
            kill(fleet, worker, Intent.OVERRAN)
        elif worker.phase is Phase.BOOTING:
            limit = fleet.generations[worker.generation].limits.boot_timeout
            say(fleet, "error", f"{worker} was not ready within {limit:g} s; it is aborted")
            kill(fleet, worker, Intent.SLOW_BOOT, "SIGABRT")  # faulthandler writes where it hangs


def _expire_zygotes(fleet: Fleet) -> None:
    for generation in fleet.generations.values():
        if generation.deadline is None or generation.deadline > fleet.now:
            continue
        if generation.zygote is Zygote.DOWN:
            if fleet.over or generation.role in (Role.OLD, Role.FAILED):
                quit_zygote(fleet, generation)
            else:
                spawn_zygote(fleet, generation)
            continue
        if generation.zygote is Zygote.LOADING:
            limit = generation.limits.boot_timeout
            generation.overdue = f"had not loaded the app within {limit:g} s and was killed"
        else:
            generation.overdue = "did not answer and was killed"
            note_violence(fleet, "a zygote")
        say(fleet, "error", f"the zygote of generation {generation.number} {generation.overdue}")
        kill_zygote(fleet, generation)


def _end_first_boot(fleet: Fleet) -> None:
    candidate = fleet.candidate
    if fleet.over or candidate is None or candidate.failure is None or not exhausted(fleet):
        return
    if not any(w.boots for w in fleet.workers.values()):
        failure = candidate.failure
        generations.give_up(fleet, failure.code, failure.reason, failure.detail)


# ── generations ──────────────────────────────────────────────────────────────────────────────


def _start_pending_reload(fleet: Fleet) -> None:
    if fleet.pending is None or fleet.candidate is not None or fleet.reload_not_before > fleet.now:
        return
    pending, fleet.pending = fleet.pending, None
    generation = generations.begin(fleet, pending.limits)
    say(fleet, "info", f"reload ({pending.why}): generation {generation.number} starts")
    fleet.out.append(ev.Notify("RELOADING=1"))


def _try_candidate(fleet: Fleet) -> None:
    candidate, current = fleet.candidate, fleet.current
    if candidate is None or current is None or candidate.zygote is not Zygote.UP:
        return
    if fleet.target == 0:  # parked (WINCH): there is nothing old to protect
        generations.promote(fleet, candidate)
        return
    canaries = fleet.of(candidate)
    if not canaries and fleet.can_fork(candidate):
        fork(fleet, candidate, min((w.slot for w in fleet.workers.values() if w.serves), default=1))
    elif any(proven_at(candidate, w) <= fleet.now for w in canaries if w.serves):
        generations.promote(fleet, candidate)


def proven_at(candidate: Generation, canary: Worker) -> float:
    """When a serving canary will have lived for `canary_time`; absolute monotonic seconds."""
    assert canary.ready_at is not None
    return canary.ready_at + candidate.limits.canary_time


def _let_generations_go(fleet: Fleet) -> None:
    for generation in fleet.generations.values():
        # A zygote that has not loaded has no children: those there may be are its predecessor's.
        needed = generation.zygote is Zygote.UP and fleet.of(generation)
        if generation.role in (Role.OLD, Role.FAILED) and not needed:
            quit_zygote(fleet, generation)


def _forget_generations(fleet: Fleet) -> None:
    for generation in list(fleet.generations.values()):
        over = fleet.over or generation.role in (Role.OLD, Role.FAILED)
        if over and generation.zygote is Zygote.GONE and not fleet.of(generation):
            del fleet.generations[generation.number]


# ── slots ────────────────────────────────────────────────────────────────────────────────────


def due_at(fleet: Fleet, worker: Worker) -> float | None:
    """When a worker that asked to be retired will be RETIRING; absolute monotonic seconds, None for never."""
    if worker.phase is not Phase.READY or not worker.due or worker.ready_at is None or not fleet.counts(worker):
        return None
    return worker.ready_at + fleet.limits.min_lifetime


def _mark_due(fleet: Fleet) -> None:
    for worker in fleet.workers.values():
        due = due_at(fleet, worker)
        if due is not None and due <= fleet.now:
            worker.phase = Phase.RETIRING
            say(fleet, "info", f"{worker} is due: {worker.due}; it serves until its replacement does")


def _fill_slots(fleet: Fleet) -> None:
    source = fleet.current or fleet.candidate
    if source is None:
        return
    held = {w.slot for w in fleet.workers.values() if (w.holds or w.boots) and fleet.counts(w)}
    for slot in range(1, fleet.target + 1):
        if slot not in held and fleet.can_fork(source):
            fork(fleet, source, slot)


def _shrink(fleet: Fleet) -> None:
    for worker in fleet.workers.values():
        if worker.slot <= fleet.target or not worker.holds or not fleet.counts(worker):
            continue
        if worker.phase is Phase.BOOTING or fleet.can_lose_one():
            drain(fleet, worker)


def _replace_outgoing(fleet: Fleet) -> None:
    current = fleet.current
    if current is None:
        return
    for worker in sorted(fleet.workers.values(), key=lambda w: (w.generation, w.serial)):
        if not fleet.outgoing(worker) or worker.slot > fleet.target:
            continue
        partner = _partner(fleet, current, worker)
        if partner is None and fleet.can_fork(current):
            fork(fleet, current, worker.slot)
        elif partner is None and not _can_refill(fleet, current):
            continue  # put off: what left now would be missing
        elif (partner is None or partner.phase is Phase.READY) and fleet.can_lose_one():
            drain(fleet, worker)


def _partner(fleet: Fleet, current: Generation, worker: Worker) -> Worker | None:
    """Who takes the place of an outgoing worker."""
    return next(
        (w for w in fleet.of(current) if w.slot == worker.slot and (w.holds or w.boots) and not fleet.outgoing(w)),
        None,
    )


def _can_refill(fleet: Fleet, current: Generation) -> bool:
    """Whether a place given up before its replacement serves would soon be filled, as far as one can know."""
    failing = current.backoff.failures > 0 and any(w.phase is Phase.BOOTING for w in fleet.of(current))
    return current.zygote is Zygote.UP and current.backoff.not_before <= fleet.now and not failing


def _announce(fleet: Fleet) -> None:
    """Say once, whenever the number that is wanted has been reached."""
    booting = any(w.phase is Phase.BOOTING for w in fleet.workers.values())
    if booting or fleet.server is not Server.SERVING or fleet.ready != fleet.target or fleet.announced == fleet.target:
        return
    texts = {0: "no worker serves, as told", 1: "the one worker is ready"}
    say(fleet, "info", texts.get(fleet.target, f"all {fleet.target} workers are ready"))
    if fleet.announced == -1:
        fleet.out.append(ev.Notify("READY=1"))
    fleet.announced = fleet.target
