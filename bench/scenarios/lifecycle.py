"""Scenarios about workers that are replaced: the failed and slow requests of clients in a recycle or reload.

Runs in the harness process.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bench.load import strict
from bench.machine import pinned
from bench.scenarios.contract import Column, Outcome, Stage
from bench.servers import Launch, Running, Server

_COLUMNS = (
    Column("failed", "failed requests", 0, compare=False),
    Column("requests", "requests", 0),
    Column("longest_ms", "longest stall ms", 0),
    Column("p999_ms", "p99.9 ms", 1),
    Column("changes", "workers replaced", 0),
)


@dataclass(frozen=True, kw_only=True)
class Turnover:
    """Two workers under a mixed load while workers are replaced; the main figure is the number of failed requests."""

    name: str
    title: str
    max_requests: int = 0
    reloads: int = 0
    columns: Sequence[Column] = _COLUMNS
    most_rounds: int = 3
    workers: int = 2
    tools: Sequence[str] = ()

    def launch(self, stage: Stage) -> Launch:
        """Ask for two workers of an app that answers with its process id."""
        del stage
        return Launch("who:app", workers=self.workers, max_requests=self.max_requests, reloads=self.reloads > 0)

    def _seconds(self, stage: Stage) -> float:
        # Long enough for each reload to end: peers take a second or two.
        return max(float(stage.seconds), 6.0, 3.0 * (self.reloads + 1))

    def estimate(self, stage: Stage) -> float:
        """The time to load, start and stop."""
        return self._seconds(stage) + 3.0

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """See Scenario."""
        starter = stage.starter(self.workers)
        with starter.start(server, self.launch(stage)) as running:
            running.wait_ready("/")
            with pinned(starter.processors.load):
                tally = asyncio.run(self._load(running, server, self._seconds(stage)))
        durations = sorted(tally.durations)
        changes = max(0, len(tally.bodies) - self.workers)
        figures = {
            "failed": float(tally.errors.total()),
            "requests": float(tally.requests),
            "longest_ms": tally.longest * 1000,
            "p999_ms": durations[int(len(durations) * 0.999)] * 1000,
            "changes": float(changes),
        }
        outcome = Outcome(figures, dict(tally.errors))
        expected = self.workers * self.reloads if self.reloads else 1
        if (self.max_requests or self.reloads) and changes < expected:
            outcome.errors["workers not replaced in time"] = expected - changes
        return outcome

    async def _load(self, running: Running, server: Server, seconds: float) -> strict.Tally:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(strict.load(running.address, seconds=seconds, kept=32, single=8, think=0.03))
            for number in range(self.reloads):
                await asyncio.sleep(seconds / (self.reloads + 1) if number else seconds / (self.reloads + 1) / 2)
                assert server.reload is not None
                running.signal(server.reload)
        return task.result()


LIFECYCLES = (
    Turnover(name="recycle", title="2 workers, recycled every 1000 requests, mixed clients", max_requests=1000),
    Turnover(name="reload", title="2 workers, 3 reloads (SIGHUP), mixed clients", reloads=3),
    Turnover(name="steady", title="2 workers, the same clients, nothing replaced (for comparison)"),
)
