"""How long to wait, how often to try, and how to say why: the numbers and sentences behind the master's decisions.

Pure (no clock, no chance of its own: `now` and `rng` are arguments); used by `state` and by the simulator.
"""

import enum
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aserver.config import Config

Rng = Callable[[], float]  # as random.random: 0 <= x < 1

#: A worker that has served this long is no part of a crash loop (systemd's StartLimitIntervalSec is 10 s too).
STABLE_AFTER = 10.0
#: Early deaths are counted over this time: longer than the longest pause, so that pausing does not clear the count.
CRASH_WINDOW = 60.0
#: Seconds: the first pause after a failed boot, and the longest. Each is drawn from its upper half, so that many
#: hosts do not retry in step.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
#: From SIGKILL until the kernel has freed even a large process; then it is sent again and said so.
KILL_ALLOWANCE = 2.0
#: Between SIGABRT (stacks are written) and SIGKILL.
ABORT_ALLOWANCE = 1.0
#: A zygote that has loaded only has to fork: 22 ms per GB of app were measured. One that takes so long is stuck.
FORK_TIMEOUT = 10.0
#: Between asking an idle zygote to leave and killing it.
QUIT_ALLOWANCE = 5.0
#: Seconds between two looks at the heartbeats. A look that comes later than twice this means that the
#: master itself stood still (suspend, SIGSTOP of the group), and proves nothing about the workers (trap 35).
BEAT_PERIOD = 0.25
#: Two reloads are not begun within this time: ten SIGHUPs in a second are one deploy (trap 44).
RELOAD_SPACING = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that the state machine decides by; times in seconds."""

    workers: int
    max_surge: int = 1
    max_unavailable: int = 0
    boot_timeout: float = 60.0
    boot_retries: int = 3
    graceful_timeout: float = 30.0
    lifespan_shutdown_timeout: float = 10.0
    hang_timeout: float = 30.0
    slow_callback: float = 1.0
    canary_time: float = 0.0
    min_lifetime: float = 10.0
    max_requests: int = 0
    max_requests_jitter: int = 0
    max_lifetime: float = 0.0
    max_lifetime_jitter: float = 0.0
    drain_delay: float = 0.0

    @classmethod
    def of(cls, config: Config, workers: int) -> "Limits":
        """Cut out of `config`; `workers` is the number that `auto` came to."""
        names = [name for name in cls.__dataclass_fields__ if name != "workers"]
        return cls(workers=workers, **{name: getattr(config, name) for name in names})

    @property
    def leave_allowance(self) -> float:
        """Seconds that a worker gets between its last request and its exit: lifespan shutdown, flush, atexit."""
        return self.lifespan_shutdown_timeout + KILL_ALLOWANCE

    def draw_lifetime(self, rng: Rng) -> tuple[int, float]:
        """(requests, seconds) after which one worker is due; 0 for never. Jitter only ever adds."""
        requests = self.max_requests + int(rng() * (self.max_requests_jitter + 1)) if self.max_requests else 0
        seconds = self.max_lifetime + rng() * self.max_lifetime_jitter if self.max_lifetime else 0.0
        return requests, seconds


class BackOff:
    """When the next fork (or exec) may happen, after failures. One per generation."""

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
        """What `to_wire` gave."""
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

        Attempts that were under way when another one failed are of the same round and count once, so that eight
        workers that miss one database are tried as often as one.
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


class Intent(enum.Enum):
    """What the master wanted of a process when it ended: the first half of every explanation."""

    NONE = "none"
    LEAVE = "leave"  # told to drain
    OVERRAN = "overran"  # drain took too long, killed
    SLOW_BOOT = "slow boot"  # not ready in time, killed
    HUNG = "hung"  # its loop stood still, killed
    STOP = "stop"  # killed because the operator would wait no longer


def explain_exit(code: int | None, signal: str | None, intent: Intent, *, out_of_memory: bool = False) -> str:  # noqa: PLR0911
    """One clause that says why a process ended (promise 8)."""
    if signal is not None:
        own = {
            Intent.OVERRAN: "was killed by aserver: the drain took too long",
            Intent.SLOW_BOOT: "was killed by aserver: it was not ready in time",
            Intent.HUNG: "was killed by aserver: its event loop stood still",
            Intent.STOP: "was killed by aserver: the stop was to be at once",
        }
        if signal in ("SIGKILL", "SIGABRT") and intent in own:
            return f"{own[intent]} ({signal})"
        if signal == "SIGKILL":
            if out_of_memory:
                return "was killed by SIGKILL: the kernel ran out of memory (its oom_kill count rose)"
            return "was killed by SIGKILL from outside aserver (no out-of-memory kill was counted)"
        if signal in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS"):
            return f"crashed with {signal}"
        return f"was ended by {signal} from outside aserver"
    if code is None:
        return "ended; its zygote did not report how"
    if code == 0:
        return "left as told" if intent is not Intent.NONE else "left by itself with exit code 0"
    meaning = {3: "boot failure", 4: "the app could not be loaded"}.get(
        code, "an unhandled error or sys.exit in the app"
    )
    return f"ended with exit code {code} ({meaning})"
