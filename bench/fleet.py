"""A fleet of hosts on a fake clock: the master's real decisions, and simulated zygotes and workers.

Pure: no process, no clock, chance from a seed. Each host is an `aserver.master.core.machine.Master`; a queue has the
next events of all hosts. Only the durations of loads, boots and drains are invented: all else the master decides.
"""

import bisect
import heapq
import math
import random
from dataclasses import dataclass, field

from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core.limits import Limits
from aserver.master.core.machine import Master


@dataclass(frozen=True, slots=True)
class Times:
    """Medians of durations in seconds, which are log-normal with `spread`."""

    load: float = 3.0  # the app, in a zygote
    boot: float = 20.0  # from the fork to READY: imports, caches, connections
    drain: float = 5.0  # from the order to the exit: the requests under way
    spread: float = 0.25  # sigma of the logarithm: a sixth of all boots takes more than 1.28 times the median

    def draw(self, rng: random.Random, median: float) -> float:
        """Return a random duration."""
        return median * math.exp(rng.gauss(0.0, self.spread))


@dataclass(frozen=True, slots=True)
class Moment:
    """A step that begins at `at` (seconds): the fewest workers that served in it, and the most that booted."""

    at: float
    serving: int
    booting: int


@dataclass(slots=True)
class Record:
    """The fleet's state in steps of `step` seconds; a step without a change is left out."""

    step: float
    moments: list[Moment] = field(default_factory=list)
    complete_at: float = math.inf  # when all workers served for the first time
    fewest: int = 0  # serving, since then
    fewest_on_a_host: int = 0  # since then
    missing: float = 0.0  # worker-seconds without service, since then
    most_booting: int = 0  # since then
    boots: int = 0  # all of them
    most_processes: int = 0  # of a host


class Fleet:
    """Masters that are all started at second 0, and the queue of their events."""

    def __init__(self, hosts: int, limits: Limits, times: Times, seed: int, step: float = 10.0) -> None:
        self._rng = random.Random(seed)
        self._limits, self._times = limits, times
        self._masters = [Master(limits, self._rng.random) for _ in range(hosts)]
        self._alarms: list[float | None] = [None] * hosts
        self._processes = [0] * hosts
        self._serving_on = [0] * hosts
        self._queue: list[tuple[float, int, int, ev.Event]] = []
        self._pushed = 0
        self._wanted = hosts * limits.workers
        self._serving: set[tuple[int, int]] = set()
        self._booting: set[tuple[int, int]] = set()
        self._last = 0.0
        self._low, self._high = 0, 0  # fewest serving and most booting of this step
        self.record = Record(step)
        for host in range(hosts):
            self._push(0.0, host, ev.Started())

    def run(self, until: float) -> Record:
        """Let `until` seconds pass (from 0), and return the record."""
        while self._queue and self._queue[0][0] <= until:
            now, _, host, event = heapq.heappop(self._queue)
            if isinstance(event, ev.Tick):
                if self._alarms[host] != now:
                    continue  # the master has another deadline since
                self._alarms[host] = None
            self._pass_to(now)
            self._happen(host, event, now)
            self._note(host)
        self._pass_to(until)
        return self.record

    # ── one event ────────────────────────────────────────────────────────────────────────────

    def _push(self, at: float, host: int, event: ev.Event) -> None:
        self._pushed += 1  # events at the same time keep their order
        heapq.heappush(self._queue, (at, self._pushed, host, event))

    def _happen(self, host: int, event: ev.Event, now: float) -> None:
        if isinstance(event, msg.Ready):
            self._booting.discard((host, event.serial))
            self._serving.add((host, event.serial))
            self._serving_on[host] += 1
        elif isinstance(event, ev.Died):
            self._processes[host] -= 1
        master = self._masters[host]
        for command in master.handle(event, now):
            self._obey(host, command, now)
        alarm = master.next_deadline()
        if alarm is not None and alarm != self._alarms[host]:
            self._push(alarm, host, ev.Tick())
        self._alarms[host] = alarm

    def _obey(self, host: int, command: ev.Command, now: float) -> None:
        times, rng = self._times, self._rng
        match command:
            case ev.SpawnZygote():
                seconds = times.draw(rng, times.load)
                self._push(now + seconds, host, msg.Loaded(command.generation, False, "asgi", (), seconds, {}))
            case msg.Fork():
                self._fork(host, command, now)
            case msg.Drain():
                self._serving.remove((host, command.serial))
                self._serving_on[host] -= 1
                self._push(now + times.draw(rng, times.drain), host, ev.Died(command.serial, code=0))
            case ev.Say() | ev.StartListening() | ev.AdoptWorkers():
                pass
            case _:
                raise AssertionError(
                    f"host {host} at {now:.1f} s: {command} has no place in a fleet where nothing fails"
                )

    def _fork(self, host: int, order: msg.Fork, now: float) -> None:
        worker = (host, order.serial)
        self._booting.add(worker)
        self._processes[host] += 1
        self.record.boots += 1
        self.record.most_processes = max(self.record.most_processes, self._processes[host])
        self._push(now, host, msg.Forked(order.serial, pid=order.serial))
        self._push(now + self._times.draw(self._rng, self._times.boot), host, msg.Ready(order.serial, {}))
        if order.recycle_after_seconds:  # counted from the fork, as worker.recycling, RecycleLimits does
            self._push(now + order.recycle_after_seconds, host, msg.RecycleAsked(order.serial, "max_lifetime"))

    # ── the record ───────────────────────────────────────────────────────────────────────────

    def _pass_to(self, now: float) -> None:
        """Record the time from the last event until `now`."""
        record, serving = self.record, len(self._serving)
        if record.complete_at <= self._last:
            record.missing += (self._wanted - serving) * (now - self._last)
        step = int(self._last / record.step)
        if int(now / record.step) > step:
            self._keep(Moment(step * record.step, self._low, self._high))
            self._low, self._high = serving, len(self._booting)
            if int(now / record.step) > step + 1:  # the steps between are all alike
                self._keep(Moment((step + 1) * record.step, self._low, self._high))
        self._last = now

    def _keep(self, moment: Moment) -> None:
        before = self.record.moments[-1] if self.record.moments else None
        if before is None or (before.serving, before.booting) != (moment.serving, moment.booting):
            self.record.moments.append(moment)

    def _note(self, host: int) -> None:
        record, serving, booting = self.record, len(self._serving), len(self._booting)
        self._low, self._high = min(self._low, serving), max(self._high, booting)
        if serving >= self._wanted and record.complete_at == math.inf:
            record.complete_at, record.fewest, record.most_booting = self._last, serving, 0
            record.fewest_on_a_host = self._limits.workers
        elif record.complete_at < math.inf:
            record.fewest = min(record.fewest, serving)
            record.fewest_on_a_host = min(record.fewest_on_a_host, self._serving_on[host])
            record.most_booting = max(record.most_booting, booting)


def between(record: Record, begin: float, end: float) -> list[Moment]:
    """Return the moments from `begin` until before `end`. The first is the moment at `begin`, or the last before it."""
    first = max(0, bisect.bisect_right(record.moments, begin, key=_at) - 1)
    return record.moments[first : bisect.bisect_left(record.moments, end, key=_at)]


def _at(moment: Moment) -> float:
    return moment.at
