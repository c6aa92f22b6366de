"""When a worker is to be recycled: it has served enough requests, lived long enough, or grown too large.

Runs in the worker, at each heartbeat. It only finds the reason. The worker then asks the master, and serves until the
master has a replacement and orders the drain.
"""

import os
import time
from dataclasses import dataclass, field

from aserver import unix
from aserver.config.values import format_size
from aserver.ipc.messages import Fork

#: Seconds between two looks at statm (2.5 us each).
LOOK_PERIOD = 1.0
#: Reading smaps_rollup takes milliseconds, and longer the larger the process is. The time between two readings is this
#: many times as long as the reading took of the CPU: on a busy machine it takes longer, and that does not count.
CLOSE_LOOK_SHARE = 500
_PAGE = os.sysconf("SC_PAGESIZE")


@dataclass(slots=True)
class RecycleLimits:
    """The limits of a worker. `born` and every `now` are monotonic seconds; `max_memory` 0 is no limit.

    The master has drawn the jitter in `order`: a random generator that was copied by the fork would draw the same
    number in each worker.
    """

    order: Fork
    born: float
    max_memory: int
    memory_metric: str
    _statm: int | None = None
    _next_look: float = field(default=0.0)
    _next_close_look: float = field(default=0.0)

    def reached(self, requests: int, now: float) -> str:
        """The limit that is reached, as a reason for the log; empty if there is none."""
        order, age = self.order, now - self.born
        if order.recycle_after_requests and requests >= order.recycle_after_requests:
            return f"{requests} requests served, its limit is {order.recycle_after_requests} (max_requests)"
        if order.recycle_after_seconds and age >= order.recycle_after_seconds:
            return f"{age:.0f} s old, its limit is {order.recycle_after_seconds:.0f} s (max_lifetime)"
        if self.max_memory and now >= self._next_look:
            self._next_look = now + LOOK_PERIOD
            used = self._memory(now)
            if used > self.max_memory:
                limit = format_size(self.max_memory)
                return f"{used >> 20} MiB of {self.memory_metric} memory used, the limit is {limit} (max_memory)"
        return ""

    def _memory(self, now: float) -> int:
        """Bytes by the metric; 0 while the resident size, which bounds the others, is below the limit."""
        resident = self._resident()
        if self.memory_metric == "rss" or resident <= self.max_memory:
            return resident if self.memory_metric == "rss" else 0
        if now < self._next_close_look:
            return 0
        began = time.thread_time()
        sums = unix.smaps_rollup()
        self._next_close_look = now + CLOSE_LOOK_SHARE * (time.thread_time() - began)
        if self.memory_metric == "pss":
            return sums.get("Pss", 0)
        return sums.get("Private_Clean", 0) + sums.get("Private_Dirty", 0)

    def _resident(self) -> int:
        if self._statm is None:
            try:
                # Opened in the worker: a descriptor that the zygote had opened would show the zygote's size.
                self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # no /proc
                return unix.peak_resident()
        return int(os.pread(self._statm, 128, 0).split()[1]) * _PAGE
