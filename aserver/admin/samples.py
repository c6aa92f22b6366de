"""The last minutes of a server as numbers: a sample a second, from two looks at its status. Pure."""

from collections import deque
from collections.abc import Mapping
from typing import Any

#: Samples that are kept: ten minutes.
MOST_SAMPLES = 600
#: Seconds of a sample.
PERIOD = 1.0

Sample = dict[str, Any]


class Samples:
    """The samples of a server, the oldest first. A new worker process, told by its serial, counts from 0."""

    def __init__(self) -> None:
        self.all: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self.taken = 0  # in all
        self._before: dict[int, int] = {}
        self._at: float | None = None

    def add(self, status: Mapping[str, Any]) -> None:
        """Take a sample, if the last one is long enough ago."""
        at = status["uptime"]
        if self._at is not None and at - self._at < PERIOD * 0.9:
            return
        workers = [worker for worker in status["workers"] if "requests" in worker]
        counts = {worker["serial"]: worker["requests"] for worker in workers}
        if self._at is not None:
            new = sum(max(0, count - self._before.get(serial, 0)) for serial, count in counts.items())
            self.all.append(
                {
                    "at": round(at, 1),
                    "rate": round(new / (at - self._at), 1),
                    "active": sum(worker["active"] for worker in workers),
                    "connections": sum(worker["connections"] for worker in workers),
                    "lag": max((worker["loop_lag"] for worker in workers), default=0.0),
                    "memory": sum(worker["memory"] for worker in workers),
                    "cpu": round(sum(worker["cpu"] for worker in workers), 3),
                    "ready": status["workers_ready"],
                }
            )
            self.taken += 1
        self._before, self._at = counts, at
