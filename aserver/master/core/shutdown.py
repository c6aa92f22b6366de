"""How the server ends: every worker told once, hurried or killed if asked, zygotes last, then Exit.

Pure. Each step has its own deadline, so nothing here waits for anybody's goodwill.
"""

from aserver.master.core import events as ev
from aserver.master.core import policy
from aserver.master.core.generations import begin_stop
from aserver.master.core.model import Fleet, Generation, Phase, Server, Worker, Zygote
from aserver.master.core.policy import Intent
from aserver.master.core.transitions import drain, finish, hurry, kill, quit_zygote, say


def on_stop_requested(fleet: Fleet, event: ev.StopRequested) -> None:
    """Somebody wants the end; asked again, it comes quicker."""
    mode = event.mode
    if fleet.stop is not None and mode <= fleet.stop:
        mode = ev.StopMode(min(fleet.stop + 1, ev.StopMode.KILL))
    if fleet.server is Server.DONE or fleet.stop is mode:
        return
    how = {
        ev.StopMode.GRACEFUL: f"requests in flight get up to {fleet.limits.graceful_timeout:g} s",
        ev.StopMode.QUICK: "requests in flight are cancelled",
        ev.StopMode.KILL: "what still runs is killed",
    }
    say(fleet, "info", f"stopping ({event.why}): {how[mode]}")
    begin_stop(fleet, mode)


def proceed(fleet: Fleet) -> None:
    """Order whatever the stop still needs."""
    if fleet.stop_begins > fleet.now and fleet.stop is ev.StopMode.GRACEFUL:
        return  # drain_delay: go on accepting while load balancers look away
    if fleet.listeners_open:
        fleet.listeners_open = False
        fleet.out.append(ev.Notify("STOPPING=1"))
        fleet.out.append(ev.CloseListeners())
    # Zygotes first: the worker that closes the listener last empties its queue before, a zygote would not.
    for generation in fleet.generations.values():
        _stop_zygote(fleet, generation)
    for worker in fleet.workers.values():
        _stop_worker(fleet, worker)
    if not fleet.workers and all(g.zygote is Zygote.GONE for g in fleet.generations.values()):
        fleet.server = Server.DONE
        fleet.out.append(fleet.result)


def _stop_worker(fleet: Fleet, worker: Worker) -> None:
    if worker.holds:
        quick = fleet.stop is not ev.StopMode.GRACEFUL
        drain(fleet, worker, final=True, graceful=0.0 if quick else None)
        worker.hurried = quick
    if worker.phase is not Phase.DRAINING:
        return
    if fleet.stop is ev.StopMode.KILL:
        kill(fleet, worker, Intent.STOP)
    elif fleet.stop is ev.StopMode.QUICK and not worker.hurried:
        hurry(fleet, worker)
    elif not worker.final:
        finish(fleet, worker)


def _stop_zygote(fleet: Fleet, generation: Generation) -> None:
    quit_zygote(fleet, generation)
    if generation.zygote is not Zygote.LEAVING:
        return
    if fleet.of(generation):
        generation.deadline = None  # it reaps its last workers
        return
    patience = policy.KILL_ALLOWANCE if fleet.stop is ev.StopMode.KILL else policy.QUIT_ALLOWANCE
    latest = fleet.now + patience
    generation.deadline = latest if generation.deadline is None else min(generation.deadline, latest)
