"""The zygote as the master's deputy: if the master dies, the zygote ends the workers that do not leave by themselves.

Runs in the zygote. Workers that an earlier zygote forked are adopted: they are not this zygote's children, so only
their pidfds tell of their end.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator

from aserver import unix

log = logging.getLogger("aserver.error")


class Adopted:
    """The adopted workers; iterating gives their pidfds, in no order."""

    def __init__(self) -> None:
        self._pidfds: dict[int, int] = {}  # by serial

    def __len__(self) -> int:
        return len(self._pidfds)

    def __iter__(self) -> Iterator[int]:
        return iter(self._pidfds.values())

    def add(self, serial: int, pidfd: int) -> None:
        """Adopt a worker."""
        self._pidfds[serial] = pidfd

    def forget_dead(self) -> None:
        """Forget workers that have ended."""
        for serial, pidfd in list(self._pidfds.items()):
            if unix.readable([pidfd], 0):
                os.close(self._pidfds.pop(serial))

    def kill(self) -> None:
        """End them all at once."""
        for pidfd in self:
            unix.send_signal(pidfd, signal.SIGKILL)


def end_stragglers(children: Collection[int], adopted: Adopted, allowed: float, look: Callable[[], None]) -> None:
    """After the master's death: let the workers drain, then end those that have not left within `allowed` seconds.

    `children` are the pids of this zygote's own workers. `look` waits a moment and reaps those that have ended.
    """

    def alive() -> int:
        adopted.forget_dead()
        return len(children) + len(adopted)

    log.error("the master is gone: %d workers drain, then this zygote ends what is left", alive())
    deadline = time.monotonic() + allowed
    while alive() and time.monotonic() < deadline:
        look()
    if left := alive():
        log.error("%d workers did not drain within %g s: they are killed", left, allowed)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    adopted.kill()
