"""Reloads, upgrades and changes of the number of workers: begun, and ended with a record each.

Pure. An operation ends when the slots that are wanted are served as it wants them; or when it has failed, another
has taken its place, or the server stops. Each end answers the requests whose tickets the operation has.
"""

from typing import Any

from aserver.master.core import events as ev
from aserver.master.core.explain import count
from aserver.master.core.model import Generation, Model, Operation, WorkerPhase


def begin_reload(model: Model, generation: Generation, request: ev.ReloadRequested) -> None:
    """`generation` starts."""
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
    older = [w for w in model.workers.values() if number and w.generation < number]
    served = {w.slot for w in model.workers.values() if w.serves and w not in older}
    if served == set(range(1, model.target + 1)) and not any(w.usable for w in older):
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
