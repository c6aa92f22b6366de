"""The numbers that the master decides by: those that are settings, those that are not, and pauses after failures.

Pure: `now` and chance (`rng`) are arguments. Times are seconds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from aserver.config import Config

Rng = Callable[[], float]  # as random.random: 0 <= x < 1

#: From SIGKILL until the kernel has freed even a large process; then SIGKILL is sent again, and that is logged.
KILL_ALLOWANCE = 2.0
#: Between SIGABRT, at which a process writes its stacks, and SIGKILL.
ABORT_ALLOWANCE = 1.0
#: A zygote that has loaded only has to fork, which takes 22 ms for each GB of the app (measured). After this long
#: without an answer it is stuck.
FORK_TIMEOUT = 10.0
#: Between asking an idle zygote to leave and killing it.
QUIT_ALLOWANCE = 5.0
#: Between two looks at the heartbeats. If a look comes later than twice this, the master itself stood still (suspend,
#: SIGSTOP of the group), and an old heartbeat proves nothing about its worker.
BEAT_PERIOD = 0.25
#: Two reloads do not begin within this time: ten SIGHUPs in a second are a single deploy.
RELOAD_SPACING = 1.0
#: A worker that has served this long is no part of a crash loop (systemd's StartLimitIntervalSec is 10 s too).
STABLE_AFTER = 10.0
#: Early deaths are counted over this time: longer than the longest pause, so that pausing does not clear the count.
CRASH_WINDOW = 60.0
#: Seconds: the first pause after a failed boot, and the longest. Each is drawn from its upper half, so that many
#: hosts do not retry in step.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that the state machine decides by; `of` takes them, and so their defaults, from the table."""

    workers: int
    preload: bool
    max_surge: int
    max_unavailable: int
    boot_timeout: float
    boot_retries: int
    graceful_timeout: float
    lifespan_shutdown_timeout: float
    hang_timeout: float
    slow_callback: float
    canary_time: float
    min_lifetime: float
    max_requests: int
    max_requests_jitter: int
    max_lifetime: float
    max_lifetime_jitter: float
    drain_delay: float
    reload: bool
    keep_serving: bool

    @classmethod
    def of(cls, config: Config, workers: int) -> "Limits":
        """Cut out of `config`; `workers` is the number that `auto` came to."""
        names = [name for name in cls.__dataclass_fields__ if name != "workers"]
        return cls(workers=workers, **{name: getattr(config, name) for name in names})

    @property
    def gives_way(self) -> bool:
        """Whether a worker leaves as soon as its successor boots: clients wait for the successor, and its code."""
        return self.reload and not self.keep_serving

    @property
    def leave_allowance(self) -> float:
        """Seconds that a worker gets between its last request and its exit: lifespan shutdown, flush, atexit."""
        return self.lifespan_shutdown_timeout + KILL_ALLOWANCE

    def draw_lifetime(self, rng: Rng) -> tuple[int, float]:
        """(requests, seconds) after which a worker is due; 0 for never. Jitter only ever adds."""
        requests = self.max_requests + int(rng() * (self.max_requests_jitter + 1)) if self.max_requests else 0
        seconds = self.max_lifetime + rng() * self.max_lifetime_jitter if self.max_lifetime else 0.0
        return requests, seconds


@dataclass(slots=True)
class BackOff:
    """When the next fork (or exec) of a generation may happen, after failures.

    `free` early deaths within CRASH_WINDOW cost no pause: killing every worker once is no crash loop.
    """

    free: int
    early: list[float] = field(default_factory=list)  # the moments of early deaths
    failed_at: float = -math.inf
    failures: int = 0  # rounds of failed attempts in a row
    not_before: float = 0.0  # absolute monotonic seconds

    def succeeded(self) -> None:
        """A worker became ready: booting works."""
        self.failures = 0

    def boot_failed(self, now: float, rng: Rng, began: float = math.inf) -> float:
        """An attempt made at `began` failed; returns the pause in seconds.

        Attempts that were under way when another failed are of the same round and count once, so that eight workers
        that miss a database are tried as often as a single worker.
        """
        if began <= self.failed_at:
            return max(0.0, self.not_before - now)
        self.failures += 1
        self.failed_at = now
        return self._pause(now, rng, self.failures)

    def died(self, now: float, rng: Rng, lived: float) -> float:
        """A ready worker died after `lived` seconds; returns the pause, usually 0."""
        if lived >= STABLE_AFTER:
            return 0.0
        self.early = [*(died for died in self.early if died > now - CRASH_WINDOW), now]
        excess = len(self.early) - self.free
        return self._pause(now, rng, excess) if excess > 0 else 0.0

    def _pause(self, now: float, rng: Rng, nth: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(nth - 1, 16))
        pause = longest * (0.5 + 0.5 * rng())
        self.not_before = max(self.not_before, now + pause)
        return pause


def when(pause: float) -> str:
    """`pause` seconds in words."""
    return f"in {pause:.1f} s" if pause else "now"
