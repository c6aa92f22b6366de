"""What will be done to the server and when: drawn from a seed before anything runs.

Pure. The seed repeats the script; what the script meets depends on the machine's timing as well.
"""

import enum
import random
from dataclasses import dataclass


class Act(enum.Enum):
    """One blow."""

    KILL_WORKER = "SIGKILL a worker"
    KILL_ZYGOTE = "SIGKILL a zygote"
    STOP_WORKER = "SIGSTOP a worker for a moment"
    RECYCLE_WORKER = "SIGTERM a worker"
    HANG_WORKER = "SIGSTOP a worker beyond hang_timeout"
    STOP_ZYGOTE = "SIGSTOP a zygote"
    STOP_MASTER = "SIGSTOP the master"
    SUSPEND = "SIGSTOP everybody, also beyond hang_timeout"
    RELOAD = "HUP"
    DEPLOY = "new code, HUP"
    BREAK = "code that raises at import or in lifespan startup, HUP, then repaired, HUP"
    MORE = "TTIN"
    FEWER = "TTOU"
    ROTATE = "logs renamed, USR1"
    UPGRADE = "USR2"


#: How often each comes up in one pass; drawn without replacement, so that a short run meets nearly all of them.
_DECK = [
    *[Act.KILL_WORKER] * 3,
    *[Act.STOP_WORKER] * 2,
    *[Act.ROTATE] * 2,
    *(act for act in Act if act not in (Act.KILL_WORKER, Act.STOP_WORKER, Act.ROTATE)),
]
#: Seconds between two blows, on average: shorter than a reload (about one), so that they meet each other.
_PACE = 0.7


@dataclass(frozen=True, slots=True)
class Step:
    """`at` seconds after the beginning; `which` in 0..1 chooses a victim among those there are, `long` a duration."""

    at: float
    act: Act
    which: float
    long: float


def draw(seed: int, seconds: float) -> list[Step]:
    """The script of a run of `seconds`."""
    rng = random.Random(seed)
    script: list[Step] = []
    deck: list[Act] = []
    at = 0.5
    while at < seconds:
        if not deck:
            deck = rng.sample(_DECK, len(_DECK))
        script.append(Step(at, deck.pop(), rng.random(), rng.random()))
        at += rng.expovariate(1 / _PACE)
    return script
