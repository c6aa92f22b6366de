"""Obeys the orders that come by the control socket.

Runs in the master. The runner does the work and the journal tells its outcome: the reply to an order that takes its
time is a ticket, and the record of the end has that ticket.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from aserver.master.control.companion import Companion
from aserver.master.control.measures import Measures
from aserver.master.control.metrics import metrics
from aserver.master.control.orders import Order, OrderRefused
from aserver.master.control.server import ControlServer
from aserver.master.control.statsd import StatsdPush
from aserver.master.control.status import status
from aserver.master.core.events import Recycle, StopMode
from aserver.master.core.model import WorkerPhase
from aserver.master.runner import Runner


@contextlib.contextmanager
def controlled(runner: Runner) -> Iterator[None]:
    """Obey the orders on the runner's control socket, keep the admin endpoint, and send metrics, as far as wanted."""
    listener = runner.control.socket if runner.control is not None else None
    server = ControlServer(listener, Answers(runner), runner.journal)
    companion = Companion(runner, server.adopt) if runner.admin else None
    statsd = StatsdPush(runner) if runner.resources.next.config.statsd_host else None
    try:
        yield
    finally:
        server.close()
        if statsd is not None:
            statsd.close()
        if companion is not None:
            companion.close()
        if runner.control is not None:
            runner.control.close()


class Answers:
    """Gives each order to the runner."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._measures = Measures()

    def __call__(self, order: Order, reply: Callable[[object], None]) -> None:
        """Obey. Raises OrderRefused."""
        after = self._runner.journal.last
        if order.command == "status":
            reply({"status": status(self._runner, self._measures)})
        elif order.command == "metrics":
            uptime = time.monotonic() - self._runner.began
            reply({"uptime": uptime, "metrics": metrics(self._runner, self._measures)})
        elif order.command in ("stacks", "requests"):
            self._ask(order, reply)
        else:
            reply({"after": after, **self._do(order)})

    def _do(self, order: Order) -> dict[str, Any]:
        """Begin an order that takes its time; the reply has its ticket."""
        runner, why = self._runner, f"aserver {order.command}"
        ticket = time.monotonic_ns()  # the clock goes on over all images of this process, so no ticket is given twice
        match order.command:
            case "reload":
                runner.reload(why, ticket)
            case "upgrade":
                runner.upgrade(why, ticket)
            case "scale":
                if order.to is None:
                    raise OrderRefused("scale needs a number of workers")
                runner.scale(ticket, to=order.to)
            case "recycle":
                return {"serials": self._recycle(self._slot(order), why)}
            case "reopen":
                runner.reopen_logs()
                return {}
            case _:
                runner.stop(StopMode.QUICK if order.now else StopMode.GRACEFUL, why)
                return {}
        return {"ticket": ticket, "workers_wanted": runner.model.target}

    def _slot(self, order: Order) -> int:
        slots = {worker.slot for worker in self._runner.model.workers.values()}
        if order.slot is None:
            raise OrderRefused(f"{order.command} needs the slot of a worker")
        if order.slot not in slots:
            known = ", ".join(map(str, sorted(slots))) or "none"
            raise OrderRefused(f"no worker has slot {order.slot}; there is {known}")
        return order.slot

    def _recycle(self, slot: int, why: str) -> list[int]:
        """Returns the serials of the workers that will leave."""
        self._runner.handle(Recycle(slot, why))
        workers = self._runner.model.workers.values()
        serials = [w.serial for w in workers if w.slot == slot and w.phase is WorkerPhase.RECYCLING]
        if not serials:
            raise OrderRefused(f"the worker of slot {slot} does not serve, so it cannot be recycled")
        return serials

    def _ask(self, order: Order, reply: Callable[[object], None]) -> None:
        """Ask the processes of a slot for their requests; the reply comes when each has answered, or is given up."""
        slot = self._slot(order)
        handles = [w for w in self._runner.processes.workers.all.values() if w.slot == slot and w.pid is not None]
        if not handles:
            raise OrderRefused(f"the worker of slot {slot} is not there yet")
        found: list[dict[str, Any]] = []

        def answered(seen: dict[str, Any]) -> None:
            found.append(seen)
            if len(found) == len(handles):
                reply({"workers": found})

        for handle in handles:
            self._runner.processes.workers.looks.ask(handle, answered)
