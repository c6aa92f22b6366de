"""Generations, and the operations that end when the workers serve: reloads, upgrades, other numbers of workers.

Pure. A generation is begun, then promoted or failed. Nothing old is touched before a worker of the new generation
serves; a generation that fails leaves the old generation as it was, and ends the server if there is none. An operation
ends with a record when the slots that are wanted are served as it wants them; or when it has failed, another
has taken its place, or the server stops. The record answers the requests whose tickets the operation has.
"""

from typing import Any

from aserver.errors import ExitCode
from aserver.master.core import events as ev
from aserver.master.core import transitions
from aserver.master.core.explain import count
from aserver.master.core.limits import RELOAD_SPACING, BackOff, Limits, when
from aserver.master.core.model import Generation, Model, Operation, Role, Worker, WorkerPhase


def begin(model: Model, limits: Limits) -> Generation:
    """Start a generation as the candidate."""
    model.numbers += 1
    backoff, spawns = BackOff(max(3, limits.workers)), BackOff(2)
    generation = Generation(model.numbers, limits, backoff, spawns, lazy=not limits.preload, target_before=model.target)
    model.generations[generation.number] = generation
    model.reload_not_before = model.now + RELOAD_SPACING
    transitions.spawn_zygote(model, generation)
    return generation


def promote(model: Model, generation: Generation) -> None:
    """The candidate works: new workers come from it, older workers are to be replaced."""
    first = model.current is None
    transitions.succeed(model, generation)
    if not first:
        model.target = _target_after(model, generation)
        older = [w for w in model.workers.values() if w.usable and w.generation != generation.number]
        serving = sum(w.serves for w in older)
        replaced = {0: "", 1: "; the older worker is replaced"}
        follows = replaced.get(serving, f"; {serving} older workers are replaced one by one")
        model.say("info", f"generation {generation.number} serves{follows}", "generation.serves", generation)
        for worker in older:
            if worker.phase is WorkerPhase.BOOTING:  # it would only serve to be replaced
                transitions.drain(model, worker, "it boots, and is of an older generation")
    generation.failure = None
    model.limits = generation.limits
    model.out.append(ev.StartListening(generation.number))


def _target_after(model: Model, generation: Generation) -> int:
    """How many workers are wanted now.

    The number in the settings, if it has changed or the server was parked; else the number that TTIN and TTOU had made
    of it. Their changes since the reload began count on top (docs/traps.md, 40).
    """
    before = generation.target_before
    if before and not model.target:
        return 0  # WINCH came after the reload
    changed = generation.limits.workers != model.limits.workers
    base = generation.limits.workers if changed or model.parked else before
    model.parked = False
    return max(1, base + model.target - before)


def candidate_failed(model: Model, generation: Generation, code: int, reason: str, detail: str) -> None:
    """The candidate will never serve: the current generation stays, or the first start is over."""
    current = model.current
    if current is None:
        give_up(model, code, reason, detail)
        return
    transitions.fail(generation)
    for worker in model.of(generation):
        if worker.usable:
            transitions.drain(model, worker, "its generation failed")
    fail_reload(model, generation, reason, detail)


def boot_failed(model: Model, worker: Worker, code: int, reason: str, detail: str) -> None:
    """Count the failure of `worker`, which has ended: try again, or give its generation up."""
    generation = model.generations[worker.generation]
    why, reason = reason, f"{worker} could not boot: {reason}"
    if model.over or generation.role in (Role.OLD, Role.FAILED):
        model.say("warning", reason, "worker.boot_failed", worker, reason=why, detail=detail)
    elif generation.role is Role.CURRENT and model.limits.keep_serving and model.ready:
        for old in model.workers.values():
            if old.phase is WorkerPhase.RECYCLING:
                transitions.stay(old)
        text = f"{reason}; the code before serves on"
        model.say("error", text, "worker.boot_failed", worker, reason=why, detail=detail)
    elif generation.role is Role.CURRENT:
        pause = generation.backoff.boot_failed(model.now, model.rng, worker.began)
        text = f"{reason}; {model.tally_beside(generation)}, attempt {generation.backoff.failures + 1} {when(pause)}"
        again = generation.failure is not None and generation.failure.detail == detail
        generation.failure = ev.Exit(code, reason, detail)
        detail = "" if again else detail  # the same traceback stands above
        model.say("error", text, "worker.boot_failed", worker, reason=why, detail=detail)
    # An import that fails will fail again in a second; a lifespan may find its database then.
    elif model.current is not None or code == ExitCode.APP_LOAD:
        candidate_failed(model, generation, code, reason, detail)
    else:
        first_boot_failed(model, generation, worker.began, ev.Exit(code, reason, detail))


def first_boot_failed(model: Model, generation: Generation, began: float, failure: ev.Exit) -> None:
    """An attempt of the first start failed; others follow, up to `boot_retries`."""
    generation.failure = failure
    pause = generation.backoff.boot_failed(model.now, model.rng, began)
    tries = model.limits.boot_retries
    if not model.exhausted:
        follows = f"attempt {generation.backoff.failures + 1} of {tries} {when(pause)}"
    elif booting := sum(w.phase is WorkerPhase.BOOTING for w in model.workers.values()):
        follows = f"no attempt is left, {count(booting, 'worker')} still {'boots' if booting == 1 else 'boot'}"
    else:
        return
    # Without its traceback: that is the last thing printed when no attempt is left, and stands there once.
    model.say("error", f"{failure.reason}; {follows}", "worker.boot_failed", generation, reason=failure.reason)


def booted(model: Model, generation: Generation) -> None:
    """A worker is ready: if others failed before it, tell now of the last failure."""
    generation.backoff.succeeded()
    if generation.failure is not None and model.current is None and generation.failure.detail:
        text = "the boot succeeds after a failure; its traceback"
        model.say("warning", text, "", generation, detail=generation.failure.detail)
    generation.failure = None


def give_up(model: Model, code: int, reason: str, detail: str) -> None:
    """End the server, as no worker ever served and none will; the cause is the last thing printed."""
    model.result = ev.Exit(code, reason, detail)
    transitions.begin_stop(model, ev.StopMode.QUICK)


# ── operations ───────────────────────────────────────────────────────────────────────────────


def begin_reload(model: Model, generation: Generation, request: ev.ReloadRequested) -> None:
    """Note the operation that `generation` is started for."""
    if request.upgrade is None:
        operation = Operation("reload", model.now, generation.number, request.tickets)
    else:
        tickets = (*request.upgrade.tickets, *request.tickets)
        operation = Operation("upgrade", request.upgrade.began, generation.number, tickets)
    model.operations.append(operation)
    text = f"reload ({request.why}): generation {generation.number} starts"
    model.say("info", text, "reload.begins", generation, reason=request.why)


def refuse(model: Model, kind: str, text: str, reason: str, tickets: tuple[int, ...]) -> None:
    """Answer a request that comes too late."""
    model.say("warning", f"{text}: {reason}", f"{kind}.ends", reason=reason, outcome="refused", tickets=tickets)


def scale(model: Model, wanted: int, tickets: tuple[int, ...]) -> None:
    """Have `wanted` workers; a change that is under way becomes a part of this one."""
    if wanted == model.target:
        text = f"scale complete: {count(wanted, 'worker')}, as before"
        model.say("info", text, "scale.ends", outcome="complete", tickets=tickets)
        return
    model.say("info", f"scaling from {model.target} to {wanted} workers", "scale.begins")
    model.target = wanted
    under_way = next((each for each in model.operations if each.kind == "scale"), None)
    if under_way is None:
        model.operations.append(Operation("scale", model.now, tickets=tickets))
    else:
        under_way.tickets += tickets


def fail_reload(model: Model, generation: Generation, reason: str, detail: str) -> None:
    """The candidate has failed, and the current generation stays."""
    assert model.current is not None
    stays = f"generation {model.current.number} stays ({model.tally})"
    text = f"reload failed: generation {generation.number}: {reason}; {stays}"
    for operation in [each for each in model.operations if each.generation == generation.number]:
        if operation.kind == "upgrade":
            text = f"upgrade incomplete: the new master runs, but its {text}"
        outcome = "failed" if operation.kind == "reload" else "incomplete"
        _end(model, operation, "error", text, outcome, reason=reason, detail=detail)


def proceed(model: Model) -> None:
    """End the operations that have come to their end."""
    for operation in list(model.operations):
        if model.over:
            text = f"{operation.kind} given up: the server stops"
            _end(model, operation, "warning", text, "abandoned", reason="the server stops")
        elif model.current is not None and model.current.number >= operation.generation:
            _look(model, operation, model.current)


def _look(model: Model, operation: Operation, current: Generation) -> None:
    kind, number = operation.kind, operation.generation
    seconds = f"{model.now - operation.began:.1f} s"
    if number and current.number > number:
        reason = f"generation {current.number} took over"
        text = f"{kind} incomplete after {seconds}: {reason} before generation {number} served alone"
        _end(model, operation, "warning", text, "superseded", reason=reason)
        return
    served = {w.slot for w in model.workers.values() if w.serves and w.generation >= number}
    older = any(w.usable for w in model.workers.values() if w.generation < number)
    if served == set(range(1, model.target + 1)) and not older:
        how = "no worker serves, as told" if model.target == 0 else f"{count(model.target, 'worker')} serve"
        if number:
            how = f"generation {number} serves with {count(model.target, 'worker')}"
        elif model.target == 1:
            how = "1 worker serves"
        text = f"{kind} complete: {how}, {seconds}{_leaving(model, number)}"
        _end(model, operation, "info", text, "complete")
    elif current.backoff.failures >= max(1, model.limits.boot_retries):
        reason = f"workers of generation {current.number} cannot boot"
        text = f"{kind} incomplete after {seconds}: {reason}, and are tried again; {model.tally_beside(current)}"
        _end(model, operation, "error", text, "incomplete", reason=reason)


def _leaving(model: Model, number: int) -> str:
    """The workers that an operation leaves behind: of an older generation, or of a slot that is not wanted."""
    draining = [w for w in model.workers.values() if w.phase is WorkerPhase.DRAINING]
    if number:
        left, kind = [w for w in draining if w.generation < number], "older worker"
    else:
        left, kind = [w for w in draining if w.slot > model.target], "worker"
    return f"; {count(len(left), kind)} {'drains' if len(left) == 1 else 'drain'}" if left else ""


def _end(model: Model, operation: Operation, level: str, text: str, outcome: str, **more: Any) -> None:
    model.operations.remove(operation)
    more |= {"outcome": outcome, "generation": operation.generation or None, "tickets": operation.tickets}
    model.say(level, text, f"{operation.kind}.ends", **more)
