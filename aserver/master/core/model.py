"""The master's state: workers, generations, the number of workers wanted, and the phase that each is in.

Pure: shapes, and questions about them that change nothing. Phases and deadlines are assigned in `transitions`.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aserver.errors import ExitCode
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core.limits import BackOff, Limits, Rng


class WorkerPhase(enum.Enum):
    """The phases of a worker."""

    BOOTING = "booting"
    FAILED = "failed"  # it will never serve; its place is not tried again before the process is gone
    READY = "ready"
    RECYCLING = "recycling"  # to be replaced, and serving until its replacement does
    DRAINING = "draining"
    KILLING = "killing"


class ZygotePhase(enum.Enum):
    """The phases of a generation's zygote process."""

    LOADING = "loading"
    TURNING = "turning"  # leaving so that a lazy zygote can take its place
    UP = "up"
    DOWN = "down"  # dead, another follows
    LEAVING = "leaving"
    GONE = "gone"  # dead, and no other is wanted


class Role(enum.Enum):
    """The part that a generation plays in the server."""

    CANDIDATE = "candidate"
    CURRENT = "current"
    OLD = "old"
    FAILED = "failed"


class ServerPhase(enum.Enum):
    """The phases of the whole server."""

    BOOTING = "booting"
    SERVING = "serving"
    STOPPING = "stopping"
    DONE = "done"


class Intent(enum.Enum):
    """Why the master ends a worker, if it does; `explain_exit` explains the worker's end by it first."""

    NONE = "none"
    LEAVE = "leave"  # told to drain
    OVERRAN = "overran"  # drain took too long, killed
    SLOW_BOOT = "slow boot"  # not ready in time, killed
    HUNG = "hung"  # its loop stood still, killed
    STOP = "stop"  # killed because the operator would wait no longer


@dataclass(slots=True, eq=False)  # two are never equal: a list searched by all fields took the master 0.3 s for 500
class Worker:
    """A worker as the master sees it."""

    serial: int
    slot: int
    generation: int
    deadline: float | None
    began: float
    phase: WorkerPhase = WorkerPhase.BOOTING
    pid: int | None = None
    ready_at: float | None = None
    recycle_requests: int = 0  # after so many requests and seconds it is to ask to be recycled; 0: never
    recycle_seconds: float = 0.0
    recycle_reason: str = ""  # why it asked to be recycled
    intent: Intent = Intent.NONE
    failure: msg.BootFailed | None = None
    unsent: msg.Drain | None = None  # ordered before the process was known
    final: bool = False  # it has been told that no other process will serve its clients
    hurried: bool = False
    reported_beat: float = -1.0  # the heartbeat whose silence was reported

    @property
    def usable(self) -> bool:
        """Whether it serves, or is on its way to."""
        return self.phase in (WorkerPhase.BOOTING, WorkerPhase.READY, WorkerPhase.RECYCLING)

    @property
    def fills(self) -> bool:
        """Whether no other worker is to be forked for its slot."""
        return self.usable or self.boots

    @property
    def boots(self) -> bool:
        """Whether its boot is not over: until its failure is booked, its place must not be tried again."""
        return self.phase in (WorkerPhase.BOOTING, WorkerPhase.FAILED)

    @property
    def killed(self) -> bool:
        """Whether the master has sent it a signal that ends it."""
        return self.intent not in (Intent.NONE, Intent.LEAVE)

    @property
    def serves(self) -> bool:
        """Whether it accepts, and has not been told to leave."""
        return self.phase in (WorkerPhase.READY, WorkerPhase.RECYCLING)

    def __str__(self) -> str:
        pid = f", pid {self.pid}" if self.pid is not None else ""
        return f"worker {self.slot} (generation {self.generation}{pid})"


@dataclass(slots=True)
class Generation:
    """A version of the code: a zygote and the workers forked from it."""

    number: int
    limits: Limits
    backoff: BackOff
    spawns: BackOff
    role: Role = Role.CANDIDATE
    zygote: ZygotePhase = ZygotePhase.DOWN
    deadline: float | None = None
    lazy: bool = False
    began: float = 0.0  # when its zygote came up
    target_before: int = 0  # the number of workers wanted when it was begun
    overdue: str = ""  # why its zygote was killed
    failure: ev.Exit | None = None  # how its last boot failed, while none has succeeded

    def proven_at(self, canary: Worker) -> float:
        """When a canary that serves will have lived for `canary_time`, in monotonic seconds."""
        assert canary.ready_at is not None
        return canary.ready_at + self.limits.canary_time


@dataclass(slots=True)
class Operation:
    """A reload, an upgrade or a change of the number of workers that has begun, and whose end has not been told."""

    kind: str  # reload, upgrade, scale
    began: float
    generation: int = 0  # that is to serve; 0: any
    tickets: tuple[int, ...] = ()


#: Events that each save brings: a developer sees the save, and then the answers.
_ROUTINE = frozenset({"zygote.up", "worker.ready", "worker.left"})


@dataclass(slots=True)
class Model:
    """The whole state, and the orders that are not yet handed out. `rng` is as random.random."""

    limits: Limits
    rng: Rng
    server: ServerPhase = ServerPhase.BOOTING
    generations: dict[int, Generation] = field(default_factory=dict)
    workers: dict[int, Worker] = field(default_factory=dict)
    target: int = 0
    parked: bool = False  # WINCH came, and no reload has brought the workers back since
    pending: ev.ReloadRequested | None = None
    stop: ev.StopMode | None = None
    stop_begins: float = 0.0
    listeners_open: bool = True
    result: ev.Exit = field(default_factory=lambda: ev.Exit(ExitCode.OK))
    now: float = 0.0
    reload_not_before: float = 0.0
    beats_at: float | None = None
    clock_restart: float = 0.0
    serials: int = 0
    numbers: int = 0
    announced: bool = False  # that the first boot is complete
    operations: list[Operation] = field(default_factory=list)
    out: list[ev.Command] = field(default_factory=list)

    def say(self, level: str, text: str, event: str, about: Worker | Generation | None = None, **more: Any) -> None:
        """Log a record, and keep it as `event`; `more` are further fields of `Say`."""
        if isinstance(about, Worker):
            more |= {"worker": about.slot, "pid": about.pid, "generation": about.generation}
        elif about is not None:
            more["generation"] = about.number
        if self.limits.reload and event in _ROUTINE:
            level = "debug"
        self.out.append(ev.Say(level, text, event=event, **more))

    def _role(self, role: Role) -> Generation | None:
        return next((g for g in self.generations.values() if g.role is role), None)

    @property
    def current(self) -> Generation | None:
        """The generation that new workers come from."""
        return self._role(Role.CURRENT)

    @property
    def candidate(self) -> Generation | None:
        """The generation that has yet to show that it works."""
        return self._role(Role.CANDIDATE)

    @property
    def over(self) -> bool:
        """Whether the server has been told to end."""
        return self.server in (ServerPhase.STOPPING, ServerPhase.DONE)

    @property
    def exhausted(self) -> bool:
        """Whether the first boot has been tried as often as it may be; the workers that still boot decide."""
        candidate = None if self.current is not None else self.candidate
        if candidate is None or candidate.failure is None:
            return False
        return candidate.backoff.failures >= self.limits.boot_retries

    @property
    def ready(self) -> int:
        """How many workers serve."""
        return sum(w.serves for w in self.workers.values())

    @property
    def tally(self) -> str:
        """How many workers serve, as a clause."""
        if self.target == 1:
            return f"{'the' if self.ready else 'no'} worker serves"
        return f"{self.ready} of {self.target} workers serve"

    def tally_beside(self, current: Generation) -> str:
        """How many workers serve, and how many of those are older than `current`."""
        older = sum(w.serves and w.generation < current.number for w in self.workers.values())
        return f"{self.tally} ({older} of them from an older generation)" if older else self.tally

    def of(self, generation: Generation) -> list[Worker]:
        """The workers of a generation."""
        return [w for w in self.workers.values() if w.generation == generation.number]

    def unforked(self, generation: Generation) -> list[Worker]:
        """The workers that its zygote was told to fork, and has not reported yet."""
        return [w for w in self.of(generation) if w.pid is None]

    def counts(self, worker: Worker) -> bool:
        """Whether it counts towards `target`. A canary does only once its generation is current: it may still fail, and
        a worker that left because the canary serves would then be missing.
        """
        role = self.generations[worker.generation].role
        return role in (Role.CURRENT, Role.OLD) or (role is Role.CANDIDATE and self.current is None)

    def taken(self) -> set[int]:
        """The slots for which no other worker is to be forked."""
        return {w.slot for w in self.workers.values() if w.fills and self.counts(w)}

    def leaving(self) -> list[Worker]:
        """The workers that serve but should be replaced, oldest first."""
        found = [w for w in self.workers.values() if w.slot <= self.target and self.outgoing(w)]
        return sorted(found, key=lambda w: (w.generation, w.serial))

    def recycle_at(self, worker: Worker) -> float | None:
        """When a worker that asked to be recycled will be RECYCLING, in monotonic seconds; None for never."""
        asked = worker.phase is WorkerPhase.READY and worker.recycle_reason and self.counts(worker)
        return worker.ready_at + self.limits.min_lifetime if asked and worker.ready_at is not None else None

    def next_deadline(self) -> float | None:
        """The next moment at which a Tick would change anything, in monotonic seconds."""
        return min((moment for moment in self._moments() if moment > self.now), default=None)

    def _moments(self) -> Iterator[float]:
        yield from (each.deadline for each in self.workers.values() if each.deadline is not None)
        yield from (each.deadline for each in self.generations.values() if each.deadline is not None)
        if self.over:
            yield self.stop_begins
            return
        yield from (moment for each in self.workers.values() if (moment := self.recycle_at(each)) is not None)
        yield from (each.backoff.not_before for each in self.generations.values())
        if (candidate := self.candidate) is not None:
            yield from (candidate.proven_at(each) for each in self.of(candidate) if each.serves)
        elif self.pending is not None:
            yield self.reload_not_before

    def outgoing(self, worker: Worker) -> bool:
        """Whether `worker` serves but should be replaced."""
        current = self.current
        old = current is not None and worker.generation < current.number
        return worker.serves and (worker.phase is WorkerPhase.RECYCLING or old)

    def can_lose_one(self) -> bool:
        """Whether a serving worker may be told to leave."""
        serving = sum(w.serves and self.counts(w) for w in self.workers.values())
        return serving - 1 >= self.target - self.limits.max_unavailable

    def can_fork(self, generation: Generation) -> bool:
        """Whether `generation` could fork now, and the number of processes allows it.

        Every living process counts, also a worker that drains. A canary may always come on top of `workers`; without a
        surge, a canary and its remains do not take the place of a worker that is wanted.
        """
        if generation.zygote is not ZygotePhase.UP or generation.backoff.not_before > self.now or self.exhausted:
            return False
        live = len(self.workers)
        extra = sum(not self.counts(w) for w in self.workers.values())
        canary = generation.role is Role.CANDIDATE and self.current is not None
        fits = canary or live - extra < self.target + self.limits.max_surge
        return fits and live < self.target + max(1, self.limits.max_surge)
