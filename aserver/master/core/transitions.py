"""Giving an order: what each does to the master's picture, together with the command that carries it out.

Pure. An order is given by its function here and nowhere else, so that the picture and the command never part.
Whether it should be given is for `plan`, `rollout`, `stop` and `news` to say.
"""

from msgspec.structs import replace

from aserver.errors import ExitCode
from aserver.master.core import events as ev
from aserver.master.core import limits
from aserver.master.core.explain import Intent
from aserver.master.core.model import Generation, Model, ServerPhase, Worker, WorkerPhase, ZygotePhase


def say(model: Model, level: str, text: str, detail: str = "") -> None:
    """Log one record."""
    model.out.append(ev.Say(level, text, detail))


# ── workers ──────────────────────────────────────────────────────────────────────────────────


def fork(model: Model, generation: Generation, slot: int) -> None:
    """Fork a worker for `slot`; the caller has asked `can_fork`."""
    model.serials += 1
    # The deadline counts from before the fork, so that a hanging import is caught in lazy mode too.
    model.workers[model.serials] = Worker(
        serial=model.serials,
        slot=slot,
        generation=generation.number,
        phase=WorkerPhase.BOOTING,
        deadline=model.now + generation.limits.boot_timeout,
        began=model.now,
    )
    if generation.deadline is None:
        generation.deadline = model.now + limits.FORK_TIMEOUT
    requests, seconds = generation.limits.draw_lifetime(model.rng)
    model.out.append(ev.Fork(generation.number, model.serials, slot, requests, seconds))


def drain(model: Model, worker: Worker, *, final: bool = False, graceful: float | None = None) -> None:
    """Tell a worker that `holds` its slot to leave; `graceful` seconds are for its requests.

    One that boots has none, so it is given no time for them; but it may have become ready before the order reaches it,
    and then it is (`on_ready`): the order itself says the same to both.
    """
    if graceful is None:
        graceful = model.limits.graceful_timeout
    for_requests = 0.0 if worker.phase is WorkerPhase.BOOTING else graceful
    worker.phase = WorkerPhase.DRAINING
    worker.intent = Intent.LEAVE
    worker.final = final
    worker.deadline = model.now + for_requests + model.limits.leave_allowance
    order = ev.Drain(worker.serial, final, graceful)
    if worker.pid is None:
        worker.unsent = order  # nobody to tell yet: sent when the process is known
    else:
        model.out.append(order)


def hurry(model: Model, worker: Worker) -> None:
    """Tell a draining worker, once, that its requests get no more time."""
    worker.hurried = worker.final = True
    worker.deadline = min(worker.deadline or model.now, model.now + model.limits.leave_allowance)
    if worker.unsent is not None:
        worker.unsent = replace(worker.unsent, final=True, graceful=0.0)
    else:
        model.out.append(ev.Hurry(worker.serial))


def finish(model: Model, worker: Worker) -> None:
    """Tell a draining worker, once, that the server stops: streams and idle connections get no more than then."""
    worker.final = True
    if worker.unsent is not None:
        worker.unsent = replace(worker.unsent, final=True)
    else:
        model.out.append(ev.Finish(worker.serial, model.limits.graceful_timeout))


def kill(model: Model, worker: Worker, intent: Intent, signal: str = "SIGKILL") -> None:
    """End a worker; a worker that its zygote has not forked so long is ended by ending the zygote."""
    worker.phase = WorkerPhase.KILLING
    worker.intent = intent
    allowance = limits.ABORT_ALLOWANCE if signal == "SIGABRT" else limits.KILL_ALLOWANCE
    worker.deadline = model.now + allowance
    note_violence(model, "a worker")
    if worker.pid is not None:
        model.out.append(ev.Kill(worker.serial, signal))
    else:
        kill_zygote(model, model.generations[worker.generation])


def note_violence(model: Model, whom: str) -> None:
    """A stop in which something had to be killed ends with its own exit code."""
    if model.server is ServerPhase.STOPPING and model.result.code == ExitCode.OK:
        model.result = ev.Exit(ExitCode.KILLED, f"stopped, but {whom} had to be killed")


# ── zygotes ──────────────────────────────────────────────────────────────────────────────────


def spawn_zygote(model: Model, generation: Generation) -> None:
    """Start the zygote of a generation that has none."""
    generation.zygote, generation.overdue = ZygotePhase.LOADING, ""
    generation.deadline = model.now + generation.limits.boot_timeout
    model.out.append(ev.SpawnZygote(generation.number, generation.lazy))


def kill_zygote(model: Model, generation: Generation) -> None:
    """End a zygote, the workers that it has forked live on."""
    generation.deadline = model.now + limits.KILL_ALLOWANCE
    order = ev.KillZygote(generation.number)
    if order not in model.out:
        model.out.append(order)


def quit_zygote(model: Model, generation: Generation) -> None:
    """No zygote is wanted any more: have it leave, if there is one."""
    if generation.zygote is ZygotePhase.DOWN:
        generation.zygote, generation.deadline = ZygotePhase.GONE, None
    elif generation.zygote is ZygotePhase.UP:
        model.out.append(ev.QuitZygote(generation.number))
    elif generation.zygote in (ZygotePhase.LOADING, ZygotePhase.TURNING):
        kill_zygote(model, generation)
    if generation.zygote not in (ZygotePhase.LEAVING, ZygotePhase.GONE):
        generation.zygote, generation.deadline = ZygotePhase.LEAVING, model.now + limits.QUIT_ALLOWANCE
