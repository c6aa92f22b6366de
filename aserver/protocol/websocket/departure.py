"""Closes the WebSockets of a worker that drains, each at its own moment, spread over a time.

Runs in the worker's loop. It must never close all at once: their clients would come back at once.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

#: Seconds between two steps of a departure.
STEP = 0.05


class Leaver(Protocol):
    """A WebSocket that can be asked to leave; asked again, or closed already, it does nothing."""

    def leave(self) -> None:
        """Begin to leave."""


class Departure:
    """Asks each of `leavers` to leave, evenly spread until `until` (seconds of the loop's clock), in random order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leavers: Sequence[Leaver], until: float) -> None:
        self._loop = loop
        self._leavers = list(leavers)
        random.shuffle(self._leavers)
        self._begin = loop.time()
        self._window = until - self._begin
        self._count = len(self._leavers)
        self._timer: asyncio.TimerHandle | None = None
        self._step()

    def _step(self) -> None:
        elapsed = self._loop.time() - self._begin + STEP
        # Each leaves in the middle of its share of the window.
        gone = self._count if elapsed >= self._window else int(self._count * elapsed / self._window + 0.5)
        while self._count - len(self._leavers) < gone:
            self._leavers.pop().leave()
        self._timer = self._loop.call_later(STEP, self._step) if self._leavers else None

    def cancel(self) -> None:
        """Ask no more of them."""
        if self._timer is not None:
            self._timer.cancel()
