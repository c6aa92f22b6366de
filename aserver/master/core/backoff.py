"""How long to wait before the next attempt, after boots that failed or workers that died early.

Pure: `now` and chance (`rng`) are arguments.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

Rng = Callable[[], float]  # as random.random: 0 <= x < 1

#: A worker that has served this long is no part of a crash loop (systemd's StartLimitIntervalSec is 10 s too).
STABLE_AFTER = 10.0
#: Early deaths are counted over this time: longer than the longest pause, so that pausing does not clear the count.
CRASH_WINDOW = 60.0
#: Seconds: the first pause after a failed boot, and the longest. Each is drawn from its upper half, so that many
#: hosts do not retry in step.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class BackOff:
    """When the next fork (or exec) of a generation may happen, after failures."""

    def __init__(self, free: int, rng: Rng) -> None:
        """`free` early deaths within CRASH_WINDOW cost no pause: killing every worker once is no crash loop."""
        self._free = free
        self._rng = rng
        self._early: deque[float] = deque()
        self._failed_at = -math.inf
        self.failures = 0  # rounds of failed attempts in a row
        self.not_before = 0.0  # absolute monotonic seconds

    def to_wire(self) -> dict[str, object]:
        """Everything but chance, as plain values."""
        return {
            "free": self._free,
            "early": list(self._early),
            "failed_at": self._failed_at,
            "failures": self.failures,
            "not_before": self.not_before,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any], rng: Rng) -> "BackOff":
        """The inverse of `to_wire`."""
        backoff = cls(wire["free"], rng)
        backoff._early.extend(wire["early"])
        backoff._failed_at, backoff.failures = wire["failed_at"], wire["failures"]
        backoff.not_before = wire["not_before"]
        return backoff

    def succeeded(self) -> None:
        """A worker became ready: booting works."""
        self.failures = 0

    def boot_failed(self, now: float, began: float = math.inf) -> float:
        """An attempt made at `began` failed; returns the pause in seconds.

        Attempts that were under way when another failed are of the same round and count once, so that eight workers
        that miss a database are tried as often as a single worker.
        """
        if began <= self._failed_at:
            return max(0.0, self.not_before - now)
        self.failures += 1
        self._failed_at = now
        return self._pause(now, self.failures)

    def died(self, now: float, lived: float) -> float:
        """A ready worker died after `lived` seconds; returns the pause, usually 0."""
        if lived >= STABLE_AFTER:
            return 0.0
        while self._early and self._early[0] <= now - CRASH_WINDOW:
            self._early.popleft()
        self._early.append(now)
        excess = len(self._early) - self._free
        return self._pause(now, excess) if excess > 0 else 0.0

    def _pause(self, now: float, nth: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(nth - 1, 16))
        pause = longest * (0.5 + 0.5 * self._rng())
        self.not_before = max(self.not_before, now + pause)
        return pause


def when(pause: float) -> str:
    """`pause` seconds in words."""
    return f"in {pause:.1f} s" if pause else "now"
