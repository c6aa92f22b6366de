"""A queue of the connections that have more work than a turn of the loop allows. Each turn, the first goes on.

Runs in the worker's loop. It must never let two connections go on in the same turn: so clients that send much slow down
each other, and no other client.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context


class FairQueue:
    """A queue of calls. Each turn of the loop makes the first of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def waiting(self) -> int:
        """The number of calls that wait."""
        return len(self._waiting)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` once, after the calls that wait already."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._next, context=self._context)

    async def turn(self) -> None:
        """Wait until the calls that wait already were made. For tasks."""
        waiter: asyncio.Future[None] = self._loop.create_future()

        def go_on() -> None:
            if not waiter.done():  # done if the task was cancelled
                waiter.set_result(None)

        self.wait(go_on)
        await waiter

    def _next(self) -> None:
        go_on = self._waiting.popleft()
        if self._waiting:
            self._loop.call_soon(self._next, context=self._context)
        go_on()
