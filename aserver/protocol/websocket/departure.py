"""Closes the WebSockets of a worker that drains, evenly spread over a time.

Runs in the worker's loop. It must never close all at the same moment, because their clients would connect again at the
same moment.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

#: Seconds between two steps of a departure.
STEP = 0.05


class Leaver(Protocol):
    """A WebSocket that can be closed by the server. A closed WebSocket ignores it."""

    def leave(self) -> None:
        """Begin the closing handshake."""


class Departure:
    """Calls `leave` of each of `leavers` in random order, evenly spread until `until` by the loop's clock."""

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
        # The window has a share of the same length for each. It leaves in the middle of its share.
        gone = self._count if elapsed >= self._window else int(self._count * elapsed / self._window + 0.5)
        while self._count - len(self._leavers) < gone:
            self._leavers.pop().leave()
        self._timer = self._loop.call_later(STEP, self._step) if self._leavers else None

    def cancel(self) -> None:
        """Call no more of them."""
        if self._timer is not None:
            self._timer.cancel()
