"""Giving an order: what each does to the master's picture, together with the command that carries it out.

Pure. An order is given by its function here and nowhere else, so that the picture and the command never part.
Whether it should be given is for `plan`, `rollout`, `stop` and `news` to say.
"""

from msgspec.structs import replace

from aserver.errors import ExitCode
from aserver.master.core import events as ev
from aserver.master.core import policy
from aserver.master.core.model import Fleet, Generation, Phase, Server, Worker, Zygote
from aserver.master.core.policy import Intent


def say(fleet: Fleet, level: str, text: str, detail: str = "") -> None:
    """Log one record."""
    fleet.out.append(ev.Say(level, text, detail))


# ── workers ──────────────────────────────────────────────────────────────────────────────────


def fork(fleet: Fleet, generation: Generation, slot: int) -> None:
    """Fork a worker for `slot`; the caller has asked `can_fork`."""
    fleet.serials += 1
    # The deadline counts from before the fork, so that a hanging import is caught in lazy mode too.
    fleet.workers[fleet.serials] = Worker(
        serial=fleet.serials,
        slot=slot,
        generation=generation.number,
        phase=Phase.BOOTING,
        deadline=fleet.now + generation.limits.boot_timeout,
        began=fleet.now,
    )
    if generation.deadline is None:
        generation.deadline = fleet.now + policy.FORK_TIMEOUT
    requests, seconds = generation.limits.draw_lifetime(fleet.rng)
    fleet.out.append(ev.Fork(generation.number, fleet.serials, slot, requests, seconds))


def drain(fleet: Fleet, worker: Worker, *, final: bool = False, graceful: float | None = None) -> None:
    """Tell a worker that `holds` its slot to leave; `graceful` seconds are for its requests.

    One that boots has none, so it is given no time for them; but it may have become ready before the order reaches it,
    and then it is (`on_ready`): the order itself says the same to both.
    """
    if graceful is None:
        graceful = fleet.limits.graceful_timeout
    for_requests = 0.0 if worker.phase is Phase.BOOTING else graceful
    worker.phase = Phase.DRAINING
    worker.intent = Intent.LEAVE
    worker.final = final
    worker.deadline = fleet.now + for_requests + fleet.limits.leave_allowance
    order = ev.Drain(worker.serial, final, graceful)
    if worker.pid is None:
        worker.unsent = order  # nobody to tell yet: sent when the process is known
    else:
        fleet.out.append(order)


def hurry(fleet: Fleet, worker: Worker) -> None:
    """Tell a draining worker, once, that its requests get no more time."""
    worker.hurried = worker.final = True
    worker.deadline = min(worker.deadline or fleet.now, fleet.now + fleet.limits.leave_allowance)
    if worker.unsent is not None:
        worker.unsent = replace(worker.unsent, final=True, graceful=0.0)
    else:
        fleet.out.append(ev.Hurry(worker.serial))


def finish(fleet: Fleet, worker: Worker) -> None:
    """Tell a draining worker, once, that the server stops: streams and idle connections get no more than then."""
    worker.final = True
    if worker.unsent is not None:
        worker.unsent = replace(worker.unsent, final=True)
    else:
        fleet.out.append(ev.Finish(worker.serial, fleet.limits.graceful_timeout))


def kill(fleet: Fleet, worker: Worker, intent: Intent, signal: str = "SIGKILL") -> None:
    """End a worker; a worker that its zygote has not forked so long is ended by ending the zygote."""
    worker.phase = Phase.KILLING
    worker.intent = intent
    allowance = policy.ABORT_ALLOWANCE if signal == "SIGABRT" else policy.KILL_ALLOWANCE
    worker.deadline = fleet.now + allowance
    note_violence(fleet, "a worker")
    if worker.pid is not None:
        fleet.out.append(ev.Kill(worker.serial, signal))
    else:
        kill_zygote(fleet, fleet.generations[worker.generation])


def note_violence(fleet: Fleet, whom: str) -> None:
    """A stop in which something had to be killed ends with its own exit code."""
    if fleet.server is Server.STOPPING and fleet.result.code == ExitCode.OK:
        fleet.result = ev.Exit(ExitCode.KILLED, f"stopped, but {whom} had to be killed")


# ── zygotes ──────────────────────────────────────────────────────────────────────────────────


def spawn_zygote(fleet: Fleet, generation: Generation) -> None:
    """Start the zygote of a generation that has none."""
    generation.zygote, generation.overdue = Zygote.LOADING, ""
    generation.deadline = fleet.now + generation.limits.boot_timeout
    fleet.out.append(ev.SpawnZygote(generation.number, generation.lazy))


def kill_zygote(fleet: Fleet, generation: Generation) -> None:
    """End a zygote, the workers that it has forked live on."""
    generation.deadline = fleet.now + policy.KILL_ALLOWANCE
    order = ev.KillZygote(generation.number)
    if order not in fleet.out:
        fleet.out.append(order)


def quit_zygote(fleet: Fleet, generation: Generation) -> None:
    """No zygote is wanted any more: have it leave, if there is one."""
    if generation.zygote is Zygote.DOWN:
        generation.zygote, generation.deadline = Zygote.GONE, None
    elif generation.zygote is Zygote.UP:
        fleet.out.append(ev.QuitZygote(generation.number))
    elif generation.zygote in (Zygote.LOADING, Zygote.TURNING):
        kill_zygote(fleet, generation)
    if generation.zygote not in (Zygote.LEAVING, Zygote.GONE):
        generation.zygote, generation.deadline = Zygote.LEAVING, fleet.now + policy.QUIT_ALLOWANCE
