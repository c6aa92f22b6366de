"""The parts of a scenario: a name, columns, its demands on a server, and a measurement.

Runs in the harness process.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.environment import Environment
from bench.machine import share_out
from bench.servers import Launch, Server, Starter


@dataclass(frozen=True)
class Column:
    """A figure of a scenario."""

    key: str
    title: str
    digits: int = 1
    compare: bool = True  # False for a count that is often 0, by which nothing can be divided


@dataclass
class Outcome:
    """A measurement of a server. With `errors` it is reported, too, and marked."""

    figures: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class MeasureError(Exception):
    """The server answered wrongly, so that nothing could be measured."""


@dataclass(frozen=True)
class Stage:
    """The conditions of measurements: environment, CPUs, a work directory, the seconds of a load."""

    environment: Environment
    cpus: frozenset[int]
    directory: Path
    seconds: int
    warmup: int = 1
    access_log: str = "file"
    certfile: Path | None = None
    keyfile: Path | None = None

    def starter(self, workers: int = 1) -> Starter:
        """Return a starter that pins a server of so many workers."""
        processors = share_out(set(self.cpus), workers)
        return Starter(self.environment, processors, self.directory, self.certfile, self.keyfile)


class Scenario(Protocol):
    """A row of the plan."""

    @property
    def name(self) -> str:
        """The name for the command line."""
        ...

    @property
    def title(self) -> str:
        """A line for reports."""
        ...

    @property
    def columns(self) -> Sequence[Column]:
        """The figures. The first is the main figure: lower is better, and ratios are made of it."""
        ...

    @property
    def most_rounds(self) -> int:
        """The most rounds that are worth their time."""
        ...

    @property
    def tools(self) -> Sequence[str]:
        """The programs that it needs beside the servers."""
        ...

    def launch(self, stage: Stage) -> Launch:
        """The demands on every server."""
        ...

    def estimate(self, stage: Stage) -> float:
        """Seconds that a measurement takes, for the progress bar and the time limit."""
        ...

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """Start the server, measure, stop it. Raises StartError, WrkError, MeasureError, MissingToolError, OSError."""
        ...
