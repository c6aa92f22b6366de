"""Events and commands: the input and the output of the pure state machine.

Pure. `runner` and `processes` turn deaths and an operator's orders into events; `runner` carries out the commands. The
messages of zygotes and workers are events as they are, and Fork and Drain are commands (`ipc.messages`). Workers are
named by `serial`, zygotes by `generation`. An event may come late, twice or not at all.
"""

import enum
from collections.abc import Mapping

import msgspec

from aserver.ipc import messages as msg
from aserver.master.core.limits import Limits


class StopMode(enum.IntEnum):
    """How fast the server is to end; a later request can only raise it."""

    GRACEFUL = 1  # requests in flight get `graceful_timeout`
    QUICK = 2  # they are cancelled; lifespan shutdown still runs
    KILL = 3  # SIGKILL


class OwnEvent(msgspec.Struct, frozen=True):
    """An event that no message brings. Not a dataclass: thirty of those take 25 ms to make, these 1 ms."""


class MasterCommand(msgspec.Struct, frozen=True):
    """A command that is no message, carried out by the function that `Runner` has for its class."""


class _OfGeneration(MasterCommand, frozen=True):
    generation: int


_OfZygote = msg.Loaded | msg.Unforkable | msg.LoadFailed | msg.Forked | msg.ForkFailed
Event = OwnEvent | _OfZygote | msg.Ready | msg.BootFailed | msg.RecycleAsked
Command = MasterCommand | msg.Fork | msg.Drain

# ── events ───────────────────────────────────────────────────────────────────────────────────


class Started(OwnEvent, frozen=True):
    """The listeners are bound: begin generation 1."""


class ZygoteGone(OwnEvent, frozen=True):
    """The zygote process has ended."""

    generation: int
    how: str
    detail: str = ""


class Breached(OwnEvent, frozen=True):
    """The worker has broken the protocol: its messages are not read any more, but it still gets ours."""

    serial: int
    reason: str


class Died(OwnEvent, frozen=True):
    """The worker process has ended, with an exit code, by a signal, or in a way that was not reported."""

    serial: int
    code: int | None = None
    signal: str | None = None
    out_of_memory: str = ""


class Beats(OwnEvent, frozen=True):
    """The last heartbeat of each worker, in monotonic seconds; sent every BEAT_PERIOD.

    A debugger may have stopped the workers in `debugged`.
    """

    beats: Mapping[int, float]
    debugged: frozenset[int] = frozenset()


class StopRequested(OwnEvent, frozen=True):
    """A signal, or the embedding program, wants the server to end."""

    mode: StopMode
    why: str


class Upgrade(msgspec.Struct, frozen=True):
    """A re-exec of the master: when it was asked for (monotonic seconds), and by which requests."""

    began: float
    tickets: tuple[int, ...] = ()


class ReloadRequested(OwnEvent, frozen=True):
    """New code or settings are to be taken up; `limits` come from the settings as read again."""

    limits: Limits
    why: str
    upgrade: Upgrade | None = None  # that this reload completes
    tickets: tuple[int, ...] = ()


class CodeChanged(OwnEvent, frozen=True):
    """The user's own code was saved (`reload`): workers forked before have the old code, or a part of each."""

    why: str


class Scale(OwnEvent, frozen=True):
    """More or fewer workers, relative (TTIN, TTOU) or absolute (WINCH: 0)."""

    delta: int = 0
    to: int | None = None
    tickets: tuple[int, ...] = ()


class Recycle(OwnEvent, frozen=True):
    """The operator wants the worker of a slot replaced."""

    slot: int
    why: str


class Tick(OwnEvent, frozen=True):
    """A deadline has come."""


# ── commands ─────────────────────────────────────────────────────────────────────────────────


class SpawnZygote(_OfGeneration, frozen=True):
    """Start the zygote of a generation; `lazy` if it must not load the app itself."""

    lazy: bool


class QuitZygote(_OfGeneration, frozen=True):
    """Ask a zygote to leave when its last child has."""


class KillZygote(_OfGeneration, frozen=True):
    """Send SIGKILL or SIGABRT to a zygote."""

    signal: str = "SIGKILL"


class AdoptWorkers(_OfGeneration, frozen=True):
    """Give a zygote the pidfds of all living workers: it is the deputy should the master die."""


class Kill(MasterCommand, frozen=True):
    """Send SIGKILL or SIGABRT to a worker."""

    serial: int
    signal: str


class DumpStacks(MasterCommand, frozen=True):
    """Have a worker's stacks written and logged."""

    serial: int
    silent: float


class StartListening(_OfGeneration, frozen=True):
    """A generation is the current one: clients may connect to its listeners."""


class Forget(_OfGeneration, frozen=True):
    """All processes of a generation have ended: listeners and logs that it alone used can be closed."""


class CloseListeners(MasterCommand, frozen=True):
    """The server stops: the workers empty the accept queues, no other process holds them open."""


class Say(MasterCommand, frozen=True):
    """Log a record. With an `event` it is kept, too, as a decision of the master (docs/operate.md).

    `worker` is a slot. `tickets` are the numbers of the requests (`aserver reload`) that this record is the answer to.
    """

    level: str
    text: str
    detail: str = ""
    event: str = ""
    worker: int | None = None
    pid: int | None = None
    generation: int | None = None
    reason: str = ""
    outcome: str = ""
    tickets: tuple[int, ...] = ()


class Exit(MasterCommand, frozen=True):
    """Nothing is left to supervise."""

    code: int
    reason: str = ""
    detail: str = ""
