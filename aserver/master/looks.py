"""Looks into workers: their requests, as the worker tells them or, where its loop stands still, as its trace shows.

Runs in the master's loop. The answers are the application's word, so they are cut and cleaned like all that comes from
there, and counted: a worker may answer each question once.
"""

import asyncio
import itertools
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from aserver.ipc import messages as msg
from aserver.master.border import clean
from aserver.master.handles import WorkerHandle

#: Seconds for a worker's answer. A loop that has not turned for so long is blocked, and its trace is taken.
ANSWER_PATIENCE = 1.0
#: Seconds that faulthandler gets to write the trace.
TRACE_PATIENCE = 0.1

Reply = Callable[[dict[str, Any]], None]


class Looks:
    """Questions that wait for their answer.

    `send_signal` sends a signal to the worker of a serial; `begun_last` reads the request begun last from a cell.
    """

    def __init__(self, send_signal: Callable[[int, signal.Signals], None], begun_last: Callable[[int], str]) -> None:
        self._signal = send_signal
        self._begun_last = begun_last
        self._numbers = itertools.count(1)
        self._waiting: dict[tuple[int, int], tuple[Reply, asyncio.TimerHandle]] = {}
        self._loop = asyncio.get_running_loop()

    def ask(self, worker: WorkerHandle, reply: Reply) -> None:
        """Call `reply` with the requests, tasks and threads of `worker`."""
        number = next(self._numbers)
        timer = self._loop.call_later(ANSWER_PATIENCE, self._take_trace, worker, number)
        self._waiting[worker.serial, number] = (reply, timer)
        if worker.channel is not None:
            worker.may_say += 1
            worker.channel.send(msg.Look(number))

    def answered(self, worker: WorkerHandle, seen: msg.Seen) -> None:
        """A worker has answered; an answer that comes too late is left aside."""
        names = ("requests", "tasks", "threads", "clients")
        facts = {name: _clean(msgspec.to_builtins(getattr(seen, name))) for name in names}
        self._end(worker, seen.number, {"blocked": False, "of": seen.of, **facts})

    def died(self, worker: WorkerHandle) -> None:
        """There will be no answer."""
        for serial, number in list(self._waiting):
            if serial == worker.serial:
                self._end(worker, number, {"blocked": True, "begun_last": "", "trace": "the process has ended"})

    def _take_trace(self, worker: WorkerHandle, number: int) -> None:
        self._signal(worker.serial, signal.SIGUSR2)
        self._loop.call_later(TRACE_PATIENCE, self._read_trace, worker, number)

    def _read_trace(self, worker: WorkerHandle, number: int) -> None:
        if (worker.serial, number) not in self._waiting:
            return
        facts = {"blocked": True, "begun_last": self._begun_last(worker.cell), "trace": worker.new_stacks()}
        self._end(worker, number, facts)

    def _end(self, worker: WorkerHandle, number: int, facts: dict[str, Any]) -> None:
        reply, timer = self._waiting.pop((worker.serial, number), (None, None))
        if reply is not None and timer is not None:
            timer.cancel()
            reply({"slot": worker.slot, "pid": worker.pid, "generation": worker.generation, **facts})


def _clean(value: Any) -> Any:
    """`value` with every text in it fit for a terminal."""
    if isinstance(value, str):
        return clean(value, msg.LONGEST_STACK + 100)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return {name: _clean(each) for name, each in value.items()} if isinstance(value, dict) else value
