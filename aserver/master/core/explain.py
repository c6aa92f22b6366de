"""Clauses for the log and `aserver status`: why a process ended, why it waits, whether clients may be sent. Pure."""

from collections.abc import Mapping

from aserver.master.core.model import Generation, Intent, Model, Role, ServerPhase, Worker, WorkerPhase, ZygotePhase

#: Seconds without a heartbeat after which a worker does not serve, although its phase says so.
BLOCKED_AFTER = 5.0


def count(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def explain_exit(code: int | None, signal: str | None, intent: Intent, *, out_of_memory: str = "") -> str:  # noqa: PLR0911
    """A clause that says why a process ended; the subject stands before it.

    `out_of_memory`: the evidence that the kernel killed it for want of memory, if there is any.
    """
    if signal is not None:
        own = {
            Intent.OVERRAN: "was killed by aserver: the drain took too long",
            Intent.SLOW_BOOT: "was killed by aserver: it was not ready in time",
            Intent.HUNG: "was killed by aserver: its event loop stood still",
            Intent.STOP: "was killed by aserver: the stop was to be at once",
        }
        if signal in ("SIGKILL", "SIGABRT") and intent in own:
            return f"{own[intent]} ({signal})"
        if signal == "SIGKILL":
            if out_of_memory:
                return f"was killed by SIGKILL: the kernel ran out of memory ({out_of_memory})"
            return "was killed by SIGKILL from outside aserver (no out-of-memory kill was counted)"
        if signal in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS"):
            return f"crashed with {signal}"
        return f"was ended by {signal} from outside aserver"
    if code is None:
        return "ended; its zygote did not report how"
    if code == 0:
        return "left as told" if intent is not Intent.NONE else "left by itself with exit code 0"
    meaning = {3: "boot failure", 4: "the app could not be loaded"}.get(
        code, "an unhandled error or sys.exit in the app"
    )
    return f"ended with exit code {code} ({meaning})"


def worker_waits_for(model: Model, worker: Worker) -> str:
    """The cause of a worker to wait; empty for a worker that just serves."""
    left = f", for at most {max(0.0, worker.deadline - model.now):.0f} s" if worker.deadline is not None else ""
    match worker.phase:
        case WorkerPhase.BOOTING:
            return f"{'its process' if worker.pid is None else 'its application to start'}{left}"
        case WorkerPhase.DRAINING:
            return f"its clients and lifespan shutdown{left}"
        case WorkerPhase.FAILED | WorkerPhase.KILLING:
            return "its process to end"
        case WorkerPhase.READY | WorkerPhase.RECYCLING if model.outgoing(worker):
            return _replacement(model, worker)
        case _:
            generation = model.generations[worker.generation]
            if generation.role is Role.CANDIDATE and model.current is not None and worker.serves:
                return f"canary_time, another {max(0.0, generation.proven_at(worker) - model.now):.0f} s"
            return ""


def _replacement(model: Model, worker: Worker) -> str:
    others = [w for w in model.workers.values() if w.slot == worker.slot and w.serial > worker.serial and w.fills]
    if others:
        return f"its replacement, which {'serves' if others[0].serves else 'boots'}"
    current = model.current
    if current is not None and current.backoff.not_before > model.now:
        return f"the pause after a failed boot, another {current.backoff.not_before - model.now:.0f} s"
    if current is not None and current.zygote is not ZygotePhase.UP:
        return f"the zygote of generation {current.number}, which is {current.zygote.value}"
    leaving = sum(w.phase is WorkerPhase.DRAINING for w in model.workers.values())
    draining = f", and {count(leaving, 'worker')} still {'drains' if leaving == 1 else 'drain'}" if leaving else ""
    return f"its turn: max_surge is {model.limits.max_surge}{draining}"


def server_waits_for(model: Model) -> str:
    """The cause of the server to wait; empty for a server that just serves."""
    if model.server is ServerPhase.STOPPING:
        left = model.stop_begins - model.now
        if left > 0:
            return f"drain_delay, another {left:.0f} s"
        return f"{count(len(model.workers), 'worker')} to leave"
    if (candidate := model.candidate) is not None:
        return _candidate(model, candidate)
    if model.pending is not None:
        return "the next reload to begin"
    missing = model.target - model.ready
    return f"{count(missing, 'worker')} to serve" if missing > 0 else ""


def _candidate(model: Model, candidate: Generation) -> str:
    if candidate.zygote is not ZygotePhase.UP:
        return f"generation {candidate.number} to load the application"
    return f"the first worker of generation {candidate.number}" + ("" if model.current is None else " to prove itself")


def readiness(model: Model, beats: Mapping[int, float]) -> tuple[bool, str]:
    """Whether clients should be sent here, and a clause about it. `beats` are the last heartbeats by serial; 0: none.

    `max_unavailable` workers may be missing. A worker whose loop stands still counts as long as another's turns,
    because the other accepts all clients.
    """
    if model.server is not ServerPhase.SERVING:
        doing = {ServerPhase.BOOTING: "boots"}.get(model.server, "stops")
        return False, f"the server {doing}, and waits for {server_waits_for(model)}"
    if model.target == 0:
        return False, "no worker is wanted"
    if model.ready < max(1, model.target - model.limits.max_unavailable):
        return False, model.tally
    last = max(beats.get(worker.serial, 0.0) for worker in model.workers.values() if worker.serves)
    if 0.0 < last < model.now - BLOCKED_AFTER:
        return False, f"no worker's event loop has turned for {model.now - last:.0f} s"
    return True, model.tally
