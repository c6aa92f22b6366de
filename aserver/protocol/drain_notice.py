"""A worker's notice to its applications that it drains.

Runs in the worker's loop. Applications find it as `scope["extensions"]["aserver.draining"]` of a WebSocket. It is set
once and never cleared; a task that waits for it may be cancelled at any time.
"""

import asyncio


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
        """Return itself, see `__copy__`; futures could not be copied."""
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
        """Wake all that wait; called in the loop."""
        self._set = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
