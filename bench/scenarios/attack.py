"""Scenarios about attacks: the latency of honest clients beside hostile clients.

Runs in the harness process; the attackers have a process of their own.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench import meter
from bench.load import hostile_streams, strict
from bench.load.hostile import KINDS
from bench.machine import pinned
from bench.scenarios.contract import Column, MeasureError, Outcome, Stage
from bench.servers import Launch, Running, Server

#: Seconds until all hostile connections must be open.
_GATHERING = 20
#: Seconds until the last of them has its first answer. Before that the idle connections are not idle.
_SETTLING = 1.5


def _columns(kinds: Sequence[str]) -> tuple[Column, ...]:
    return (
        Column("worst", "worst", 2),
        *(Column(kind, kind, 2, compare=False) for kind in kinds),
        *(Column(_memory_of(kind), f"{kind}, PSS MB", 0, compare=False) for kind in kinds),
        Column("p99_ms", "p99 ms without", 2, compare=False),
    )


def _memory_of(kind: str) -> str:
    return f"{kind}_mb"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """16 honest clients, alone and beside hostile clients. The main figure is the worst p99, divided by that alone.

    Memory is the whole server's at the end of each attack, while the hostile connections are open.
    """

    name: str = "attack"
    title: str = "p99 of honest clients under attack, as a multiple of their p99 without"
    kinds: Sequence[str] = tuple(KINDS)
    http2: bool = False
    columns: Sequence[Column] = _columns(tuple(KINDS))
    most_rounds: int = 5
    tools: Sequence[str] = ()

    def launch(self, stage: Stage) -> Launch:
        """Ask for a single worker."""
        del stage
        return Launch("bodies:app", http2=self.http2)

    def estimate(self, stage: Stage) -> float:
        """Count the time before and during each attack."""
        return 2 * len(self.kinds) * (stage.seconds + 3.0)

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """See Scenario."""
        outcome = Outcome()
        calm: list[float] = []
        for kind in self.kinds:
            starter = stage.starter()
            with starter.start(server, self.launch(stage)) as running, pinned(starter.processors.load):
                running.wait_ready("/")
                without = self._p99(running, stage.seconds, outcome)
                with _attackers(kind, running, stage.seconds + _GATHERING + _SETTLING):
                    outcome.figures[kind] = self._p99(running, stage.seconds, outcome) / without
                    outcome.figures[_memory_of(kind)] = meter.memory(running.pid).pss / 2**20
                calm.append(without)
        outcome.figures["worst"] = max(outcome.figures[kind] for kind in self.kinds)
        outcome.figures["p99_ms"] = sorted(calm)[len(calm) // 2] * 1000
        return outcome

    @staticmethod
    def _p99(running: Running, seconds: float, outcome: Outcome) -> float:
        tally = asyncio.run(strict.load(running.address, seconds=seconds, kept=16, single=0, think=0.02))
        for failure, count in tally.errors.items():
            outcome.errors[failure] = outcome.errors.get(failure, 0) + count
        return sorted(tally.durations)[int(len(tally.durations) * 0.99)]


@contextmanager
def _attackers(kind: str, running: Running, seconds: float) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.load.hostile", kind, running.address.host, str(running.address.port)]
    process = subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("ready"):
            raise MeasureError(f"the attackers ({kind}) did not get their connections: status {process.wait()}")
        time.sleep(_SETTLING)
        yield
    finally:
        process.kill()
        process.communicate()


H2_ATTACK = Attack(
    name="h2-attack",
    title="The same under attacks over HTTP/2; the honest clients speak HTTP/1.1 on the same address",
    kinds=tuple(hostile_streams.KINDS),
    http2=True,
    columns=_columns(tuple(hostile_streams.KINDS)),
)
