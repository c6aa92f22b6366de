"""Medians, spreads and ratios of measurements. Pure: no process, no clock, no file.

A ratio is made of two figures of the same round, not of two medians. In a round both servers are measured within
minutes. If the machine is slow for a while, both figures are larger, and the ratio is the same. The median of all
ratios is reported.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """A measurement of a server in a round. `failure` is the reason if there are no figures."""

    scenario: str
    server: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failure: str | None = None


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and the largest value."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """Return the spread of the values; None if there are none."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def by_round(samples: Iterable[Sample], server: str, key: str) -> dict[int, float]:
    """Return a server's figure in each round that has it."""
    return {
        sample.round: sample.figures[key] for sample in samples if sample.server == server and key in sample.figures
    }


def ratios(samples: Sequence[Sample], server: str, other: str, key: str) -> list[float]:
    """Return `server / other` for each round that measured both. A round where the other is zero has no ratio."""
    ours = by_round(samples, server, key)
    theirs = by_round(samples, other, key)
    return [ours[number] / theirs[number] for number in sorted(ours) if theirs.get(number)]


def best(samples: Sequence[Sample], servers: Iterable[str], key: str) -> str | None:
    """Return the server with the lowest median, of those without errors; of all, if all had errors.

    It is the best of the whole run. The best of each round would mix several servers to a peer that does not exist.
    """
    ranked = []
    for server in servers:
        values = list(by_round(samples, server, key).values())
        if values:
            ranked.append((bool(errors(samples, server)), statistics.median(values), server))
    return min(ranked)[2] if ranked else None


def errors(samples: Iterable[Sample], server: str) -> dict[str, int]:
    """Add up a server's errors over all rounds, failed measurements included."""
    total: dict[str, int] = {}
    for sample in samples:
        if sample.server == server:
            for kind, count in sample.errors.items():
                total[kind] = total.get(kind, 0) + count
            if sample.failure is not None:
                total["not measured"] = total.get("not measured", 0) + 1
    return total


def rotate(servers: Sequence[str], number: int) -> list[str]:
    """Return the servers in the order of a round: each round begins with another server.

    Odd rounds also run backwards. Otherwise each server would always come after the same neighbour, with that
    neighbour's warm cache and sockets in TIME_WAIT.
    """
    if not servers:
        return []
    start = number % len(servers)
    turned = [*servers[start:], *servers[:start]]
    return turned[::-1] if number % 2 else turned
