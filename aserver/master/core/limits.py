"""The numbers that the master decides by: those that are settings, and those that are not.

Pure. Times are seconds.
"""

from dataclasses import dataclass

from aserver.config import Config
from aserver.master.core.backoff import Rng

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
