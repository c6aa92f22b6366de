"""The end of the server: each worker is told once, hurried or killed if asked; zygotes last, then Exit.

Pure. Each step has its own deadline, so a process that does not obey delays the end by that deadline only.
"""

from aserver.master.core import events as ev
from aserver.master.core import transitions
from aserver.master.core.model import Generation, Intent, Model, ServerPhase, Worker, WorkerPhase, ZygotePhase


def on_stop_requested(model: Model, event: ev.StopRequested) -> None:
    """Begin to stop, or stop quicker than before."""
    mode = event.mode
    if model.stop is not None and mode <= model.stop:
        mode = ev.StopMode(min(model.stop + 1, ev.StopMode.KILL))
    if model.server is ServerPhase.DONE or model.stop is mode:
        return
    how = {
        ev.StopMode.GRACEFUL: f"requests in flight get up to {model.limits.graceful_timeout:g} s",
        ev.StopMode.QUICK: "requests in flight are cancelled",
        ev.StopMode.KILL: "what still runs is killed",
    }
    model.say("info", f"stopping ({event.why}): {how[mode]}", "server.stops", reason=event.why)
    transitions.begin_stop(model, mode)


def proceed(model: Model) -> None:
    """Order everything that the stop still needs."""
    if model.stop_begins > model.now and model.stop is ev.StopMode.GRACEFUL:
        return  # drain_delay: accept until load balancers have noticed
    if model.listeners_open:
        model.listeners_open = False
        model.out.append(ev.CloseListeners())
    # Zygotes first: the worker that closes the listener last empties its queue before, a zygote would not.
    for generation in model.generations.values():
        _stop_zygote(model, generation)
    for worker in model.workers.values():
        _stop_worker(model, worker)
    if not model.workers and all(g.zygote is ZygotePhase.GONE for g in model.generations.values()):
        transitions.end(model)


def _stop_worker(model: Model, worker: Worker) -> None:
    if worker.usable:
        quick = model.stop is not ev.StopMode.GRACEFUL
        transitions.drain(model, worker, "the server stops", final=True, graceful=0.0 if quick else None)
        worker.hurried = quick
    if model.stop is ev.StopMode.KILL and not worker.killed:
        transitions.kill(model, worker, Intent.STOP)
    hurry = model.stop is ev.StopMode.QUICK and not worker.hurried
    if worker.phase is WorkerPhase.DRAINING and (hurry or not worker.final):
        transitions.drain_finally(model, worker, at_once=hurry)


def _stop_zygote(model: Model, generation: Generation) -> None:
    transitions.quit_zygote(model, generation)
    if generation.zygote is ZygotePhase.LEAVING:
        transitions.await_last_zygote(model, generation)
