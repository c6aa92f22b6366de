"""The reply to `status`: one JSON object, whose fields docs/operate.md promises.

Runs in the master. It only looks.
"""

import os
import time
from typing import Any

from aserver import __version__
from aserver.ipc.board import Field
from aserver.master.control.measures import Measures, days_left
from aserver.master.core.explain import server_waits_for, worker_waits_for
from aserver.master.core.model import Generation, Worker
from aserver.master.handles import WorkerHandle
from aserver.master.runner import Runner
from aserver.metrics.page import read_owed


def status(runner: Runner, measures: Measures) -> dict[str, Any]:
    """The reply, made from the model, the processes and the board."""
    model, handles = runner.model, runner.processes.workers.all
    model.now = max(model.now, time.monotonic())  # it was told the time at its last event
    measures.keep({handle.pid for handle in handles.values() if handle.pid is not None})
    config = runner.resources.next.config
    ready, reason = runner.readiness()
    workers = sorted(model.workers.values(), key=lambda w: (w.slot, w.serial))
    return {
        "version": __version__,
        "pid": os.getpid(),
        "target": config.target,
        "phase": model.server.value,
        "waits_for": server_waits_for(model),
        "uptime": round(time.monotonic() - runner.began, 3),
        "generation": model.current.number if model.current is not None else None,
        "workers_wanted": model.target,
        "workers_ready": model.ready,
        "ready": ready,
        "reason": reason,
        "last_reload": runner.journal.latest("reload.ends", "upgrade.ends"),
        "last_death": runner.journal.latest("worker.died", "worker.boot_failed", "worker.hung", "zygote.died"),
        "last_event": runner.journal.last,
        "under_way": [
            {"kind": each.kind, "generation": each.generation or None, "seconds": round(model.now - each.began, 3)}
            for each in model.operations
        ],
        "listeners": [
            {"name": listener.name, "queue": queue[0], "backlog": queue[1]}
            for listener in runner.resources.listeners
            for queue in [listener.queue() or (None, None)]
        ],
        "certificates": [{"file": path, "days": days_left(path)} for path in config.certfile],
        "generations": [_generation(runner, each) for each in model.generations.values()],
        "workers": [_worker(runner, each, handles.get(each.serial), measures) for each in workers],
    }


def _generation(runner: Runner, generation: Generation) -> dict[str, Any]:
    zygote = runner.processes.zygotes.get(generation.number)
    return {
        "number": generation.number,
        "role": generation.role.value,
        "lazy": generation.lazy,
        "zygote": generation.zygote.value,
        "zygote_pid": zygote.pid if zygote is not None else None,
    }


def _worker(runner: Runner, worker: Worker, handle: WorkerHandle | None, measures: Measures) -> dict[str, Any]:
    model = runner.model
    row: dict[str, Any] = {
        "slot": worker.slot,
        "serial": worker.serial,
        "pid": worker.pid,
        "generation": worker.generation,
        "phase": worker.phase.value,
        "waits_for": worker_waits_for(model, worker),
        "age": round(model.now - worker.began, 3),
    }
    board = runner.processes.board
    cell = board.words(handle.cell) if handle is not None else None
    if handle is None or cell is None or worker.pid is None:
        return row
    beat = cell[Field.BEAT] / 1e9
    silent = max(0.0, model.now - beat) if beat else None
    cpu, share = measures.cpu(worker.pid)
    memory = measures.memory(worker.pid)
    return row | {
        "requests": cell[Field.REQUESTS],
        "active": cell[Field.ACTIVE],
        "connections": cell[Field.CONNECTIONS],
        "websockets": cell[Field.WEBSOCKETS],
        "clients": read_owed(board.page(handle.cell)),
        "accepts": bool(cell[Field.ACCEPTING]),
        "silent": silent and round(silent, 3),
        "loop_lag": round(max(cell[Field.LAG] / 1e9, (silent or 0.0) - 0.1), 4),
        "memory": memory,
        "cpu_seconds": round(cpu, 2),
        "cpu": share,
        "next_recycle": _next_recycle(runner, worker, cell[Field.REQUESTS], memory),
    }


def _next_recycle(runner: Runner, worker: Worker, requests: int, memory: int) -> list[dict[str, Any]]:
    """The limits that would recycle it, and how much of each is left."""
    if worker.recycle_reason:
        return [{"why": worker.recycle_reason, "left": 0}]
    found: list[dict[str, Any]] = []
    if worker.recycle_requests:
        found.append({"why": "max_requests", "left": max(0, worker.recycle_requests - requests)})
    if worker.recycle_seconds:
        age = runner.model.now - worker.began
        found.append({"why": "max_lifetime", "left": round(max(0.0, worker.recycle_seconds - age), 1)})
    config = runner.resources.of[worker.generation].config
    if config.max_memory and config.memory_metric == "private":
        found.append({"why": "max_memory", "left": max(0, config.max_memory - memory)})
    return found
