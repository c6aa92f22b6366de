"""Who has more to do than one turn of the worker's loop allows: each turn, one of them goes on.

Runs in the worker's loop. It must never let two go on in one turn: a crowd of clients, each of which sends more than
is to be worked through at once, shall slow each other down and nobody else.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context


class FairQueue:
    """A queue of what is to be called, one in a turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._waiting: deque[Callable[[], None]] = deque()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on`, once, when those who waited before have been called."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._next, context=self._context)

    async def turn(self) -> None:
        """Wait, in a task, when those who waited before have been called."""
        waiter: asyncio.Future[None] = self._loop.create_future()

        def go_on() -> None:
            if not waiter.done():  # cancelled
                waiter.set_result(None)

        self.wait(go_on)
        await waiter

    def _next(self) -> None:
        go_on = self._waiting.popleft()
        if self._waiting:
            self._loop.call_soon(self._next, context=self._context)
        go_on()
