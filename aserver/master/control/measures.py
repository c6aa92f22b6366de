"""CPU time and memory of the workers' processes, as the kernel counts them, and the days that certificates have left.

Runs in the master, when a client asks.
"""

import contextlib
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from aserver import tls, unix

#: A process's own memory is read from smaps_rollup, which takes milliseconds; the next reading waits for this many
#: times as long.
MEMORY_SHARE = 200
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _Seen:
    at: float
    ticks: int
    share: float = 0.0
    memory: int = 0
    memory_due: float = 0.0


def days_left(certificate: str) -> float | None:
    """Days until the certificate in a file ends; None if it cannot be read."""
    ends = tls.expiry(Path(certificate))
    return None if ends is None else round((ends - time.clock_gettime(time.CLOCK_REALTIME)) / 86400, 1)


class Measures:
    """The last readings of each process, by pid."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def keep(self, pids: Collection[int]) -> None:
        """Forget all others."""
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in pids}

    def cpu(self, pid: int) -> tuple[float, float]:
        """(seconds in all, share of a CPU since the last look or, at the first, since the process began)."""
        now, began, ticks = time.monotonic(), 0.0, 0
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            began = int(fields[19]) / _TICKS
        seen = self._seen.get(pid)
        if seen is None:
            lived = time.clock_gettime(time.CLOCK_BOOTTIME) - began if began else 0.0
            self._seen[pid] = _Seen(now, ticks, ticks / _TICKS / lived if lived > 0 else 0.0)
        elif now - seen.at >= 0.5:
            seen.share, seen.at, seen.ticks = (ticks - seen.ticks) / _TICKS / (now - seen.at), now, ticks
        return ticks / _TICKS, round(self._seen[pid].share, 3)

    def memory(self, pid: int) -> int:
        """Bytes that the process shares with no other; 0 if the kernel does not tell."""
        seen = self._seen.setdefault(pid, _Seen(time.monotonic(), 0))
        began = time.monotonic()
        if began >= seen.memory_due:
            sums = unix.smaps_rollup(pid)
            seen.memory = sums.get("Private_Clean", 0) + sums.get("Private_Dirty", 0)
            now = time.monotonic()
            seen.memory_due = now + max(0.5, MEMORY_SHARE * (now - began))
        return seen.memory
