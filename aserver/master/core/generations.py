"""What becomes of a generation: begun, promoted, failed, or the end of the server if there was never another.

Pure. Nothing old is touched before a worker of the new generation serves; a generation that fails leaves the old
one as it was.
"""

from aserver.errors import ExitCode
from aserver.master.core import events as ev
from aserver.master.core import policy
from aserver.master.core.model import Fleet, Generation, Phase, Role, Server, Worker, Zygote, exhausted, when
from aserver.master.core.policy import BackOff, Limits
from aserver.master.core.transitions import drain, say, spawn_zygote


def begin(fleet: Fleet, limits: Limits) -> Generation:
    """Start a generation as the candidate."""
    fleet.numbers += 1
    generation = Generation(
        number=fleet.numbers,
        limits=limits,
        role=Role.CANDIDATE,
        zygote=Zygote.DOWN,
        deadline=None,
        backoff=BackOff(free=max(3, limits.workers), rng=fleet.rng),
        spawns=BackOff(free=2, rng=fleet.rng),
        lazy=fleet.lazy,
        target_before=fleet.target,
    )
    fleet.generations[generation.number] = generation
    fleet.reload_not_before = fleet.now + policy.RELOAD_SPACING
    spawn_zygote(fleet, generation)
    return generation


def promote(fleet: Fleet, generation: Generation) -> None:
    """The candidate works: new workers come from it, older ones are to be replaced."""
    current = fleet.current
    if current is not None:
        current.role = Role.OLD
        fleet.target = _target_after(fleet, generation)
        fleet.last_reload = f"generation {generation.number} serves"
        older = [w for w in fleet.workers.values() if w.holds and w.generation != generation.number]
        serving = sum(w.serves for w in older)
        say(fleet, "info", f"generation {generation.number} serves; {serving} older workers are replaced one by one")
        fleet.out.append(ev.Notify("READY=1"))
        for worker in older:
            if worker.phase is Phase.BOOTING:  # it would only serve to be replaced
                drain(fleet, worker)
    generation.role = Role.CURRENT
    generation.failure = None
    fleet.limits = generation.limits


def _target_after(fleet: Fleet, generation: Generation) -> int:
    """How many workers are wanted now: what the settings say if they changed or nobody was wanted, else what TTIN and
    TTOU made of it; what they said since the reload began counts on top (trap 40).
    """
    before = generation.target_before
    if before and not fleet.target:
        return 0  # WINCH came after the reload
    changed = generation.limits.workers != fleet.limits.workers
    base = generation.limits.workers if changed or not before else before
    return max(1, base + fleet.target - before)


def candidate_failed(fleet: Fleet, generation: Generation, code: int, reason: str, detail: str) -> None:
    """The candidate will never serve: the current generation stays, or the first start is over."""
    current = fleet.current
    if current is None:
        give_up(fleet, code, reason, detail)
        return
    generation.role = Role.FAILED
    fleet.last_reload = f"failed: {reason}"
    canaries = fleet.of(generation)
    for worker in canaries:
        if worker.holds:
            drain(fleet, worker)
    say(
        fleet,
        "error",
        f"reload failed: generation {generation.number}: {reason}; generation {current.number} stays "
        f"({fleet.ready} of {fleet.target} workers serve)",
        detail,
    )
    fleet.out.append(ev.Notify("READY=1"))


def boot_failed(fleet: Fleet, worker: Worker, code: int, reason: str, detail: str) -> None:
    """`worker`, which is gone, could not boot."""
    generation = fleet.generations[worker.generation]
    reason = f"{worker} could not boot: {reason}"
    if fleet.over or generation.role in (Role.OLD, Role.FAILED):
        say(fleet, "warning", reason, detail)
    elif generation.role is Role.CURRENT:
        pause = generation.backoff.boot_failed(fleet.now, worker.began)
        say(
            fleet,
            "error",
            f"{reason}; {fleet.ready} of {fleet.target} workers serve{_mix(fleet, generation)}, "
            f"attempt {generation.backoff.failures + 1} {when(pause)}",
            detail,
        )
    # What cannot be imported now cannot be imported in a second; a lifespan that fails may find its database then.
    elif fleet.current is not None or code == ExitCode.APP_LOAD:
        candidate_failed(fleet, generation, code, reason, detail)
    else:
        first_boot_failed(fleet, generation, worker.began, ev.Exit(code, reason, detail))


def _mix(fleet: Fleet, current: Generation) -> str:
    older = sum(w.serves and w.generation < current.number for w in fleet.workers.values())
    return f" ({older} of them from an older generation)" if older else ""


def first_boot_failed(fleet: Fleet, generation: Generation, began: float, failure: ev.Exit) -> None:
    """An attempt of the first start failed; others follow, up to `boot_retries`."""
    generation.failure = failure
    pause = generation.backoff.boot_failed(fleet.now, began)
    tries = fleet.limits.boot_retries
    if not exhausted(fleet):
        what = f"attempt {generation.backoff.failures + 1} of {tries} {when(pause)}"
        say(fleet, "error", f"{failure.reason}; {what}", failure.detail)
    elif booting := sum(w.phase is Phase.BOOTING for w in fleet.workers.values()):
        say(fleet, "error", f"{failure.reason}; no attempt is left, {booting} workers still boot", failure.detail)


def give_up(fleet: Fleet, code: int, reason: str, detail: str) -> None:
    """No worker ever served and none will: end, with the cause as the last thing printed."""
    fleet.result = ev.Exit(code, reason, detail)
    begin_stop(fleet, ev.StopMode.QUICK)


def begin_stop(fleet: Fleet, mode: ev.StopMode) -> None:
    """From now on the server ends; `stop` does the rest."""
    if fleet.stop is None and mode is ev.StopMode.GRACEFUL and fleet.server is Server.SERVING:
        fleet.stop_begins = fleet.now + fleet.limits.drain_delay
    else:
        fleet.stop_begins = min(fleet.stop_begins, fleet.now)
    fleet.stop = max(mode, fleet.stop or mode)
    fleet.server = Server.STOPPING
    fleet.pending = None
