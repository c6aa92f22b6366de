"""Workers that another zygote forked, and that this one, as the master's deputy, ends should the master die.

Runs in the zygote. They are not its children, so only their pidfds tell of their end.
"""

import os
import signal
from collections.abc import Iterator

from aserver import unix


class Adopted:
    """The pidfds of adopted workers; iterating gives those, in no order."""

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
