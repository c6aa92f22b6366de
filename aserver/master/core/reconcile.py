"""Compares the model with the number of workers wanted, and orders the difference.

Pure. Runs after every event, always in the same order: first deadlines that have passed, then the generations, then the
slots. It keeps no state of its own, so an event that was lost costs at most the time until the next deadline.
"""

from aserver.master.core import events as ev
from aserver.master.core import generations, shutdown, transitions
from aserver.master.core.explain import count
from aserver.master.core.model import Generation, Intent, Model, Role, ServerPhase, Worker, WorkerPhase, ZygotePhase


def reconcile(model: Model) -> None:
    """Order all that the model calls for at `model.now`."""
    orders = -1
    while orders != len(model.out):
        # An order may call for another: a reload may have waited for the promotion of this generation. Without another
        # round it would wait for the next event, since a deadline that has passed arms no timer.
        orders = len(model.out)
        _reconcile_once(model)


def _reconcile_once(model: Model) -> None:
    _expire_workers(model)
    _expire_zygotes(model)
    _end_first_boot(model)
    if not model.over:
        _start_pending_reload(model)
        _try_candidate(model)
        _recycle(model)
        _fill_slots(model)
        _shrink(model)
        _replace_outgoing(model)
        _let_generations_go(model)
        _announce(model)
    elif model.server is ServerPhase.STOPPING:
        shutdown.proceed(model)
    generations.proceed(model)
    _forget_generations(model)


# ── deadlines ─────────────────────────────────────────────────────────────────────


def _expire_workers(model: Model) -> None:
    for worker in model.workers.values():
        if worker.deadline is None or worker.deadline > model.now:
            continue
        if worker.killed:
            transitions.kill(model, worker, worker.intent)  # SIGABRT was not enough, or the kernel is slow: again
        elif worker.phase in (WorkerPhase.DRAINING, WorkerPhase.FAILED):
            model.say("error", f"{worker} did not leave in time; it is killed", "worker.overdue", worker)
            transitions.kill(model, worker, Intent.OVERRAN)
        else:
            limit = model.generations[worker.generation].limits.boot_timeout
            reason = f"was not ready within {limit:g} s"
            model.say("error", f"{worker} {reason}; it is aborted", "worker.overdue", worker, reason=reason)
            transitions.kill(model, worker, Intent.SLOW_BOOT, "SIGABRT")  # faulthandler writes where it hangs


def _expire_zygotes(model: Model) -> None:
    for generation in model.generations.values():
        if generation.deadline is None or generation.deadline > model.now:
            continue
        if generation.zygote is ZygotePhase.DOWN:
            if model.over or generation.role in (Role.OLD, Role.FAILED):
                transitions.quit_zygote(model, generation)
            else:
                transitions.spawn_zygote(model, generation)
            continue
        if generation.zygote is ZygotePhase.LOADING:
            limit = generation.limits.boot_timeout
            signal = "SIGKILL" if generation.overdue else "SIGABRT"  # faulthandler writes where it hangs
            generation.overdue = f"had not loaded the app within {limit:g} s and was killed"
        else:
            signal, generation.overdue = "SIGKILL", "did not answer and was killed"
            transitions.note_kill(model, "a zygote")
        text = f"the zygote of generation {generation.number} {generation.overdue}"
        model.say("error", text, "zygote.overdue", generation, reason=generation.overdue)
        transitions.kill_zygote(model, generation, signal)


def _end_first_boot(model: Model) -> None:
    failure = model.candidate.failure if model.candidate else None
    if failure is None or model.over or not model.exhausted or any(w.boots for w in model.workers.values()):
        return
    generations.give_up(model, failure.code, failure.reason, failure.detail)


# ── generations ──────────────────────────────────────────────────────────────────────────────


def _start_pending_reload(model: Model) -> None:
    if model.pending is None or model.candidate is not None or model.reload_not_before > model.now:
        return
    pending, model.pending = model.pending, None
    generations.begin_reload(model, generations.begin(model, pending.limits), pending)


def _try_candidate(model: Model) -> None:
    candidate = model.candidate
    if candidate is None or candidate.zygote is not ZygotePhase.UP or model.current is None:
        return
    if model.target == 0:  # parked (WINCH): there is nothing old to protect
        generations.promote(model, candidate)
        return
    canaries = model.of(candidate)
    if not canaries and model.can_fork(candidate):
        slot = min((w.slot for w in model.workers.values() if w.serves), default=1)
        transitions.fork(model, candidate, slot, "the canary")
    elif any(candidate.proven_at(w) <= model.now for w in canaries if w.serves):
        generations.promote(model, candidate)


def _let_generations_go(model: Model) -> None:
    for generation in model.generations.values():
        # A zygote that has not loaded has no children: those there may be are its predecessor's.
        if generation.role in (Role.OLD, Role.FAILED) and not (
            generation.zygote is ZygotePhase.UP and model.of(generation)
        ):
            transitions.quit_zygote(model, generation)


def _forget_generations(model: Model) -> None:
    for generation in list(model.generations.values()):
        if generation.zygote is not ZygotePhase.GONE or model.of(generation):
            continue
        if model.over or generation.role in (Role.OLD, Role.FAILED):
            del model.generations[generation.number]
            model.out.append(ev.Forget(generation.number))


# ── slots ────────────────────────────────────────────────────────────────────────────────────


def _recycle(model: Model) -> None:
    for worker in model.workers.values():
        if worker.recycle_reason and (due := model.recycle_at(worker)) is not None and due <= model.now:
            transitions.recycle(worker, worker.recycle_reason)
            text = f"{worker} is due: {worker.recycle_reason}; it serves until its replacement does"
            model.say("info", text, "worker.recycle", worker, reason=worker.recycle_reason)


def _fill_slots(model: Model) -> None:
    source = model.current or model.candidate
    if source is None:
        return
    taken = model.taken()
    for slot in range(1, model.target + 1):
        if slot not in taken and model.can_fork(source):
            transitions.fork(model, source, slot, "no worker has this slot")


def _shrink(model: Model) -> None:
    for worker in model.workers.values():
        if worker.slot <= model.target or not worker.usable or not model.counts(worker):
            continue
        if worker.phase is WorkerPhase.BOOTING or model.can_lose_one():
            transitions.drain(model, worker, f"it is not wanted any more: {count(model.target, 'worker')} are")


def _replace_outgoing(model: Model) -> None:
    """Replace what `max_surge` and `max_unavailable` allow. They are asked again only after a step, which alone changes
    their answers: asked for each of 500 workers, a reload took the master seconds of CPU for each replacement.
    """
    current = model.current
    if current is None:
        return
    partners, forks, loses = _partners(model, current), model.can_fork(current), model.can_lose_one()
    for worker in model.leaving():
        partner = partners.get(worker.slot)
        serves = partner is not None and partner.phase is WorkerPhase.READY
        if partner is None and forks:
            transitions.fork(model, current, worker.slot, f"to replace {worker}")
        elif loses and (serves or (_can_refill(model, current) if partner is None else _gives_way(model, worker))):
            why = "its replacement serves" if serves else "max_unavailable lets it go before its replacement serves"
            transitions.drain(model, worker, why)
        else:
            continue
        partners, forks, loses = _partners(model, current), model.can_fork(current), model.can_lose_one()


def _gives_way(model: Model, worker: Worker) -> bool:
    return model.limits.gives_way and worker.phase is WorkerPhase.RECYCLING


def _partners(model: Model, current: Generation) -> dict[int, Worker]:
    """By slot the worker that takes the place of an outgoing worker; of several the first."""
    found = [w for w in model.of(current) if w.fills and not model.outgoing(w)]
    return {w.slot: w for w in reversed(found)}


def _can_refill(model: Model, current: Generation) -> bool:
    """Whether a place given up before its replacement serves would soon be filled, as far as can be known."""
    failing = current.backoff.failures > 0 and any(w.boots for w in model.of(current))
    return current.zygote is ZygotePhase.UP and current.backoff.not_before <= model.now and not failing


def _announce(model: Model) -> None:
    """Say once that the number of workers that is wanted has been reached; later changes are generations."""
    if model.announced or model.server is not ServerPhase.SERVING or model.ready != model.target:
        return
    if any(w.boots for w in model.workers.values()):
        return
    texts = {0: "no worker serves, as told", 1: "the one worker is ready"}
    model.say("info", texts.get(model.target, f"all {model.target} workers are ready"), "server.ready")
    model.announced = True
