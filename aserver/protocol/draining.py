"""How WebSockets leave a worker that goes: a notice to their applications, then one after the other.

Runs in the worker's loop. Applications find the notice as `scope["extensions"]["aserver.draining"]` of a WebSocket; it
is set once, never cleared, and whoever waits may be cancelled at any time.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

#: Seconds between two steps of a departure; clients that are told at once come back at once.
STEP = 0.05


class Draining:
    """Set when the worker begins to drain. It does not have to be made or used inside a task."""

    __slots__ = ("_set", "_waiters")

    def __init__(self) -> None:
        self._set = False
        self._waiters: set[asyncio.Future[None]] = set()

    def __copy__(self) -> "Draining":
        """Return itself: a scope may be copied, and there is one drain."""
        return self

    def __deepcopy__(self, memo: object) -> "Draining":
        """Return itself, see `__copy__`; those who wait could not be copied."""
        return self

    def is_set(self) -> bool:
        """Tell whether the worker drains."""
        return self._set

    async def wait(self) -> None:
        """Wait until the worker drains."""
        if self._set:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def set(self) -> None:
        """Wake everybody; called in the loop."""
        self._set = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Leaver(Protocol):
    """What can be told to go; told again, or when it has gone by itself, it does nothing."""

    def leave(self) -> None:
        """Begin to go."""


class Departure:
    """Tells some to leave, evenly spread until `until` (seconds of the loop's clock), in random order."""

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
        # Each in the middle of its share of the window.
        gone = self._count if elapsed >= self._window else int(self._count * elapsed / self._window + 0.5)
        while self._count - len(self._leavers) < gone:
            self._leavers.pop().leave()
        self._timer = self._loop.call_later(STEP, self._step) if self._leavers else None

    def cancel(self) -> None:
        """Tell nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
