"""Scenarios about starting: from exec to the first answer, with small and large applications.

Runs in the harness process.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.scenarios.contract import Column, Outcome, Stage
from bench.servers import Launch, Server


@dataclass(frozen=True, kw_only=True)
class Start:
    """The time from exec to the first answer, and from SIGTERM to the end, of a server with two workers."""

    name: str
    title: str
    app: str
    path: str
    columns: Sequence[Column] = (Column("start_ms", "start ms", 0), Column("stop_ms", "stop ms", 0))
    most_rounds: int = 99
    workers: int = 2
    tools: Sequence[str] = ()

    def launch(self, stage: Stage) -> Launch:
        """Ask for two workers, the least that a server in production has."""
        del stage
        return Launch(self.app, workers=self.workers)

    def estimate(self, stage: Stage) -> float:
        """The time to start and stop."""
        del stage
        return 2.0

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """See Scenario."""
        with stage.starter(self.workers).start(server, self.launch(stage)) as running:
            start_ms = running.wait_ready(self.path)
            began = time.perf_counter()
            graceful = running.stop()
            stop_ms = (time.perf_counter() - began) * 1000
        return Outcome({"start_ms": start_ms, "stop_ms": stop_ms}, {} if graceful else {"had to be killed": 1})


STARTS = (
    Start(name="start", title="From start to the first answer: FastAPI, 2 workers", app="fast:app", path="/items/7"),
    Start(name="start-hello", title="From start to the first answer: hello, 2 workers", app="hello:app", path="/"),
    Start(
        name="start-django", title="From start to the first answer: Django, 2 workers", app="django_hello:app", path="/"
    ),
)
