"""The last minutes of a server as numbers: a sample a second, from two looks at its metrics and its status. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

#: Samples that are kept: ten minutes.
MOST_SAMPLES = 600
#: Seconds of a sample.
PERIOD = 1.0

Sample = dict[str, Any]
Reply = Mapping[str, Any]


class Samples:
    """The samples of a server, the oldest first."""

    def __init__(self) -> None:
        self.all: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self.taken = 0
        self._before: Mapping[str, Sequence[int]] = {}
        self._now: float | None = None

    def add(self, status: Reply, metrics: Reply, wall: float) -> None:
        """Take a sample, if the last one is long enough ago. `wall` is the time of day, in Unix seconds."""
        now: float = metrics["uptime"]
        passed = None if self._now is None else now - self._now
        if passed is not None and passed < PERIOD * 0.9:
            return
        durations = next(each for each in metrics["metrics"] if each["name"] == "http.server.request.duration")
        counts = {each["labels"]["status"]: each["buckets"] for each in durations["samples"]}
        if passed is not None:
            new = {name: _less(buckets, self._before.get(name, ())) for name, buckets in counts.items()}
            together = [sum(each) for each in zip(*new.values(), strict=True)]
            self.all.append(
                {
                    "at": round(wall, 1),
                    "rate": round(sum(together) / passed, 1),
                    "classes": {name: round(sum(buckets) / passed, 1) for name, buckets in new.items()},
                    "p50": quantile(durations["bounds"], together, 0.5),
                    "p90": quantile(durations["bounds"], together, 0.9),
                    "p99": quantile(durations["bounds"], together, 0.99),
                    **_of_status(status),
                }
            )
            self.taken += 1
        self._before, self._now = counts, now


def _less(now: Sequence[int], before: Sequence[int]) -> list[int]:
    return [count - (before[index] if before else 0) for index, count in enumerate(now)]


def _of_status(status: Reply) -> Sample:
    workers = [worker for worker in status["workers"] if "requests" in worker]
    return {
        "active": sum(worker["active"] for worker in workers),
        "lag": max((worker["loop_lag"] for worker in workers), default=0.0),
        "memory": sum(worker["memory"] for worker in workers),
    }


def quantile(bounds: Sequence[float], buckets: Sequence[int], share: float) -> float | None:
    """The value that so large a share of the values does not exceed; None for no values.

    As Prometheus' `histogram_quantile`: values are taken to be spread evenly over their bucket, and those above the
    last bound to be as large as that.
    """
    rank, seen, lower = share * sum(buckets), 0, 0.0
    if not rank:
        return None
    for upper, count in zip(bounds, buckets, strict=False):
        if seen + count >= rank:
            return round(lower + (upper - lower) * (rank - seen) / count, 6)
        seen, lower = seen + count, upper
    return bounds[-1]
