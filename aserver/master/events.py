"""What can happen to the master, and what it can order: the vocabulary of the pure state machine.

Pure. `runner` turns the system's news into events and commands into system calls; `state` sees only these.
Workers are named by `serial`, zygotes by `generation`; any event may come late, twice or not at all.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from aserver.master.policy import Limits


class StopMode(enum.IntEnum):
    """How impatient a stop is; a later request can only raise it."""

    GRACEFUL = 1  # requests in flight get `graceful_timeout`
    QUICK = 2  # they are cancelled; lifespan shutdown still runs
    KILL = 3  # SIGKILL


# ── events ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Started:
    """The listeners are bound: begin generation 1."""


@dataclass(frozen=True, slots=True)
class ZygoteUp:
    """The zygote has loaded and can fork."""

    generation: int


@dataclass(frozen=True, slots=True)
class ZygoteUnforkable:
    """The zygote holds what does not survive a fork; it leaves, and a lazy one is wanted."""

    generation: int


@dataclass(frozen=True, slots=True)
class ZygoteFailed:
    """The zygote could not load the app; it leaves."""

    generation: int
    exit_code: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ZygoteGone:
    """The zygote process has ended."""

    generation: int
    how: str


@dataclass(frozen=True, slots=True)
class Forked:
    """A worker process exists."""

    serial: int
    pid: int


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """fork(2) failed."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker serves."""

    serial: int


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The worker will never serve, and is about to exit."""

    serial: int
    exit_code: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RetireAsked:
    """The worker is due."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The worker process has ended, with an exit code or by a signal, or nobody knows how."""

    serial: int
    code: int | None = None
    signal: str | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Beats:
    """The last heartbeat of each worker, in monotonic seconds; sent every BEAT_PERIOD."""

    beats: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants the server to end."""

    mode: StopMode
    why: str


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """New code or settings are to be taken up; `limits` come from the settings as read again."""

    limits: Limits
    why: str


@dataclass(frozen=True, slots=True)
class Scale:
    """More or fewer workers, relative (TTIN, TTOU) or absolute (WINCH: 0)."""

    delta: int = 0
    to: int | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline has come."""


Event = (
    Started
    | ZygoteUp
    | ZygoteUnforkable
    | ZygoteFailed
    | ZygoteGone
    | Forked
    | ForkFailed
    | Ready
    | BootFailed
    | RetireAsked
    | Died
    | Beats
    | StopRequested
    | ReloadRequested
    | Scale
    | Tick
)


# ── commands ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SpawnZygote:
    """Start the zygote of a generation; `lazy` if it must not load the app itself."""

    generation: int
    lazy: bool


@dataclass(frozen=True, slots=True)
class QuitZygote:
    """Ask a zygote to leave when its last child has."""

    generation: int


@dataclass(frozen=True, slots=True)
class KillZygote:
    """SIGKILL a zygote."""

    generation: int


@dataclass(frozen=True, slots=True)
class AdoptWorkers:
    """Give a zygote the pidfds of all living workers: it is the deputy should the master die."""

    generation: int


@dataclass(frozen=True, slots=True)
class Fork:
    """Fork a worker."""

    generation: int
    serial: int
    slot: int
    retire_after_requests: int
    retire_after_seconds: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell a worker to leave; once per worker."""

    serial: int
    final: bool
    graceful: float


@dataclass(frozen=True, slots=True)
class Hurry:
    """Tell a draining worker that its requests get no more time; once per worker."""

    serial: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL or SIGABRT to a worker."""

    serial: int
    signal: str


@dataclass(frozen=True, slots=True)
class DumpStacks:
    """Have a worker's stacks written and logged."""

    serial: int
    silent: float


@dataclass(frozen=True, slots=True)
class StartListening:
    """The first worker is ready: connections may come."""


@dataclass(frozen=True, slots=True)
class CloseListeners:
    """The server stops: the workers empty the accept queues, nobody else holds them open."""


@dataclass(frozen=True, slots=True)
class Say:
    """Log one record."""

    level: str
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the service manager (sd_notify(3))."""

    text: str


@dataclass(frozen=True, slots=True)
class Exit:
    """Nothing is left to supervise."""

    code: int
    reason: str = ""
    detail: str = ""


Command = (
    SpawnZygote
    | QuitZygote
    | KillZygote
    | AdoptWorkers
    | Fork
    | Drain
    | Hurry
    | Kill
    | DumpStacks
    | StartListening
    | CloseListeners
    | Say
    | Notify
    | Exit
)
