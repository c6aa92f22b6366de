"""The reply to `metrics`: the counters of all workers, and the master's own numbers.

Runs in the master. It only looks. docs/operate.md has the form, `metrics/families` the names.
"""

import datetime
import time
from collections.abc import Iterator

from aserver.ipc.board import Field
from aserver.master.control.measures import Measures, days_left
from aserver.master.core.model import WorkerPhase
from aserver.master.runner import Runner
from aserver.metrics.families import Family, Sample, family, labelled, of_words, single
from aserver.metrics.page import Counter
from aserver.metrics.tally import of_counts


def metrics(runner: Runner, measures: Measures) -> list[Family]:
    """The families of counters and gauges, as the exposition writes them."""
    words = runner.processes.workers.counted()
    config = runner.resources.next.config
    wall = time.clock_gettime(time.CLOCK_REALTIME)
    days = {path: left for path in config.certfile if (left := days_left(path)) is not None}
    return [
        *of_words(words),
        *_of_board(runner),
        *_of_workers(runner, measures),
        *of_counts(runner.journal.counts),
        *_of_reload(runner),
        single("aserver.start.time", wall - (time.monotonic() - runner.began)),
        *_of_listeners(runner),
        single("aserver.log.dropped", words[Counter.DROPPED] + (runner.logs.dropped if runner.logs is not None else 0)),
        labelled("aserver.certificate.days", "file", days),
    ]


def _of_board(runner: Runner) -> Iterator[Family]:
    """Gauges of open requests and connections, as the living workers count them on the board."""
    workers = runner.processes.workers.all.values()
    cells = [cell for worker in workers if (cell := runner.processes.board.words(worker.cell)) is not None]
    for name, field in (
        ("http.server.active_requests", Field.ACTIVE),
        ("aserver.connections", Field.CONNECTIONS),
        ("aserver.websockets", Field.WEBSOCKETS),
    ):
        yield single(name, sum(cell[field] for cell in cells))


def _of_workers(runner: Runner, measures: Measures) -> Iterator[Family]:
    model = runner.model
    workers = model.workers.values()
    phases = {phase.value: sum(w.phase is phase for w in workers) for phase in WorkerPhase}
    yield labelled("aserver.workers", "phase", phases)
    yield single("aserver.workers.wanted", model.target)
    measures.keep({w.pid for w in workers if w.pid is not None})
    memory = {str(w.slot): measures.memory(w.pid) for w in workers if w.pid is not None and w.usable}
    yield labelled("aserver.worker.memory", "slot", memory)


def _of_reload(runner: Runner) -> Iterator[Family]:
    current = runner.model.current
    if current is not None:
        yield single("aserver.generation", current.number)
    last = runner.journal.latest("reload.ends", "upgrade.ends")
    if last is not None:
        yield single("aserver.last_reload.successful", int(last.outcome == "complete"))
        yield single("aserver.last_reload.time", datetime.datetime.fromisoformat(last.time).timestamp())


def _of_listeners(runner: Runner) -> Iterator[Family]:
    queues = [({"listener": each.name}, each.queue()) for each in runner.resources.listeners]
    known = [(labels, queue) for labels, queue in queues if queue is not None]
    yield family("aserver.listener.queue", [Sample(labels, value=queue[0]) for labels, queue in known])
    yield family("aserver.listener.backlog", [Sample(labels, value=queue[1]) for labels, queue in known])
