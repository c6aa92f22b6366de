"""The wait of a stream for room in its client's windows: its deadline, and the tasks that wait.

Runs in the worker's loop. It is made only for a stream that had to wait. It must never cut off a client that reads,
however slowly.
"""

import asyncio
from math import inf

from aserver.protocol.context import Context
from aserver.protocol.http2.sender import Sender
from aserver.protocol.http2.streams import Stream
from aserver.protocol.transport.connection import LEAST_PROGRESS


class WindowWait:
    """The wait of a stream. `deadline` is infinite while nothing waits."""

    __slots__ = ("_context", "_sender", "_sent", "_stream", "_unsent", "_waiters", "deadline")

    def __init__(self, context: Context, sender: Sender, stream: Stream) -> None:
        self._context = context
        self._sender = sender
        self._stream = stream
        self._waiters: list[asyncio.Future[None]] = []
        self.deadline = inf
        self._unsent = 0  # bytes of the stream that waited when the deadline was set
        self._sent = 0  # bytes that the whole connection had sent at that time

    def begin(self) -> None:
        """Give the client `write_timeout` from now on, unless it has a deadline already."""
        if self.deadline == inf:
            self._unsent = self._stream.queued
            self._sent = self._sender.sent
            self.deadline = self._context.now + self._context.write_timeout

    def is_over(self, now: float) -> bool:
        """Tell whether the deadline has passed and the client has made next to no room. Else set the next deadline."""
        if self.deadline > now:
            return False
        self.deadline = inf
        stream, sender = self._stream, self._sender
        if not stream.queued:
            return False
        blocked = stream.send_window <= 0 or sender.sent == self._sent
        # A transport that takes nothing has a deadline of its own (`Connection.write_deadline`).
        if blocked and not sender.held and stream.queued > self._unsent - LEAST_PROGRESS:
            return True
        self.begin()
        return False

    async def until_writable(self) -> None:
        """Wait while the stream is `write_paused` and not closed."""
        while self._stream.write_paused and not self._stream.closed:
            waiter: asyncio.Future[None] = self._context.loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)

    def wake(self) -> None:
        """Let the waiting tasks look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
