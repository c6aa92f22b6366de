"""What the master knows of its processes: workers, generations, and the phase that each is in.

Pure; only shapes and the questions that one of them can answer alone. `state` does the deciding.
"""

import enum
from dataclasses import dataclass

from aserver.master import events as ev
from aserver.master.policy import BackOff, Intent, Limits


class Phase(enum.Enum):
    """Of a worker."""

    BOOTING = "booting"
    READY = "ready"
    RETIRING = "retiring"
    DRAINING = "draining"
    KILLING = "killing"


class Zygote(enum.Enum):
    """Of a generation's zygote process."""

    LOADING = "loading"
    TURNING = "turning"  # leaving so that a lazy one can take its place
    UP = "up"
    DOWN = "down"  # dead, another one follows
    LEAVING = "leaving"
    GONE = "gone"  # dead, and no other one is wanted


class Role(enum.Enum):
    """Of a generation."""

    CANDIDATE = "candidate"
    CURRENT = "current"
    OLD = "old"
    FAILED = "failed"


class Server(enum.Enum):
    """Of the whole."""

    BOOTING = "booting"
    SERVING = "serving"
    STOPPING = "stopping"
    DONE = "done"


@dataclass(slots=True)
class Worker:
    """A worker as the master sees it."""

    serial: int
    slot: int
    generation: int
    phase: Phase
    deadline: float | None
    began: float
    pid: int | None = None
    ready_at: float | None = None
    due: str = ""  # why it asked to be retired
    intent: Intent = Intent.NONE
    failure: ev.BootFailed | None = None
    unsent: ev.Drain | None = None  # ordered before the process was known
    hurried: bool = False
    reported_beat: float = -1.0  # the heartbeat whose silence was reported

    @property
    def holds(self) -> bool:
        """Whether it fills its slot: it serves, or is on its way to."""
        return self.phase in (Phase.BOOTING, Phase.READY, Phase.RETIRING)

    @property
    def serves(self) -> bool:
        """Whether it accepts and nobody has told it to leave."""
        return self.phase in (Phase.READY, Phase.RETIRING)

    def __str__(self) -> str:
        pid = f", pid {self.pid}" if self.pid is not None else ""
        return f"worker {self.slot} (generation {self.generation}{pid})"


@dataclass(slots=True)
class Generation:
    """One version of the code: a zygote and the workers forked from it."""

    number: int
    limits: Limits
    role: Role
    zygote: Zygote
    deadline: float | None
    backoff: BackOff
    spawns: BackOff
    lazy: bool = False
    began: float = 0.0
