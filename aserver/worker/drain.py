"""The drain of a server: its end in order, without a request lost.

Runs in the worker's loop or the embedding program's. The server has closed its acceptors before. The steps: serve the
clients that the kernel has accepted already, let requests end, tell WebSockets to leave, close idle connections, cancel
the connections that are left at the deadline. A drain is *final* if no other process accepts on these listeners.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

import anyio

from aserver.config import Config
from aserver.protocol.service import Service
from aserver.protocol.transport.handshakes import Handshakes
from aserver.worker.acceptor import Acceptor
from aserver.worker.relay import Relay

log = logging.getLogger("aserver.error")

#: Seconds between two looks whether the last connection has gone. An event would have to be set by every request.
POLL = 0.02
#: Seconds for the handshakes of clients that were in the accept queue at a final stop.
LAST_HANDSHAKES = 1.0
#: Seconds for an idle TLS client to answer our close_notify, which it need not do.
GOODBYE = 0.5
#: Seconds that a cancelled request gets to unwind before its connection is cut off.
UNWIND = 1.0
#: Seconds of a final stop after which the log names the requests that it waits for, and how many of them.
NAME_AFTER, NAMED = 1.0, 5
#: Part of graceful_timeout, and of stream_grace, in which WebSockets are closed.
WEBSOCKET_WINDOW = 0.25


class ServerDrain:
    """Ordered once or several times, then run once. `deadline` is by the loop's clock."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        handshakes: Handshakes,
        release: Callable[[], None],
        relay: Relay | None = None,
    ) -> None:
        """`relay`: idle connections go to the successor, and nothing is waited for but requests."""
        self.ordered = anyio.Event()
        self.final = False
        self.patient = True  # whether requests were given any time
        self.deadline = 0.0
        self._config = config
        self._loop = loop
        self._handshakes = handshakes
        self._release = release
        self._relay = relay
        self._named: set[object] = set()

    def order(self, *, final: bool, graceful: float) -> None:
        """Give requests `graceful` seconds from now.

        Another order can only shorten the time, and make the drain final.
        """
        deadline = self._loop.time() + graceful
        self.deadline = min(self.deadline, deadline) if self.ordered.is_set() else deadline
        self.final = self.final or final
        self.patient = self.patient and graceful > 0
        self.ordered.set()

    @property
    def time_left(self) -> float:
        """Seconds until the deadline; 0 without an order."""
        return max(0.0, self.deadline - self._loop.time())

    async def run(self, service: Service, acceptors: Sequence[Acceptor]) -> None:
        """Drain `service`, whose `acceptors` are closed. Returns when no connection is left."""
        await asyncio.sleep(0)  # asyncio's loop closes its servers a turn later (worker/acceptor.py, _close)
        if self.final:
            await self._serve_queued(acceptors)
        service.drain()
        await asyncio.sleep(0)  # connections that the loop had accepted already are made now
        if self._relay is not None and not self.final:
            self._relay.hand_on(service.connections)
            service.close_idle()
            service.tasks.stop_streams(self._loop.time())
            service.close_websockets(self._loop.time())

        def empty() -> bool:
            return self._is_empty(service)

        # WebSockets run on for most of the time. They leave in turn in the last part of it, the window.
        window = WEBSOCKET_WINDOW * (self.deadline - self._loop.time())
        if not self.final:  # meanwhile the sweep closes connections that are idle for longer than `keep_alive`
            await self._until(lambda: self.final or empty(), self.deadline - window)
        if self.final:
            await self._end_idle_and_streams(service)
            await self._until(empty, self.deadline - window)
        departure = service.close_websockets(self.deadline - window / 4)  # the rest is for closing handshakes
        await self._until(empty)
        departure.cancel()
        await self._close_idle(service)
        await self.cut_off(service)

    async def cut_off(self, service: Service) -> None:
        """End all that is left. May be called in the middle of `run`, which then ends."""
        await self._cancel(service)
        self._handshakes.give_up()
        service.abort()
        await asyncio.sleep(0)

    async def _serve_queued(self, acceptors: Sequence[Acceptor]) -> None:
        """Take the clients that the kernel has accepted, then close the listeners, then make connections of them."""
        queued = [(acceptor, acceptor.take_queued()) for acceptor in acceptors]
        self._release()  # before anything is awaited: a client that connects from here on is refused, and not reset
        until = self._loop.time() + LAST_HANDSHAKES
        for acceptor, taken in queued:
            await acceptor.serve_queued(taken, until)

    async def _end_idle_and_streams(self, service: Service) -> None:
        """End connections, streams and WebSockets that may never end by themselves.

        Part of a final drain, also if a drain becomes final while it runs.

        Idle connections have `idle_grace`, streams and WebSockets `stream_grace`. An application that has not even
        looked by the end of a second `stream_grace` is cancelled (HTTP: `Service.sweep`). Others still have their time.
        """

        def empty() -> bool:
            return self._is_empty(service)

        began, grace = self._loop.time(), self._config.stream_grace
        naming = self._loop.call_later(NAME_AFTER, self._name, service)
        self._release()
        service.tasks.stop_streams(self._loop.time())
        await self._until(empty, began + self._config.idle_grace)
        self._handshakes.give_up()  # a client that sends nothing must not delay the stop
        await self._close_idle(service)
        await self._until(empty, began + (1 - WEBSOCKET_WINDOW) * grace)
        departure = service.close_websockets(began + grace)
        await self._until(empty, began + grace)
        departure.cancel()
        service.tasks.end_streams(self._loop.time())
        await self._until(empty, began + 2 * grace)
        service.end_websockets()
        if naming.when() < self._loop.time():
            self._name(service)  # WebSockets that were told meanwhile

    def _name(self, service: Service) -> None:
        """Log the requests that the stop waits for, each once."""
        lasting = {request: text for request, text in service.lasting().items() if request not in self._named}
        if not lasting or self._loop.time() >= self.deadline:
            return
        self._named.update(lasting)
        names = list(lasting.values())
        more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
        text = "the stop waits up to %.1f s for %s%s (stop again to end at once)"
        log.info(text, self.time_left, "; ".join(names[:NAMED]), more)

    def _is_empty(self, service: Service) -> bool:
        """Whether there is no connection, no handshake, and no application that works on after its answer."""
        return not (service.connections or service.active or self._handshakes)

    async def _close_idle(self, service: Service) -> None:
        """Close idle connections. TLS clients get GOODBYE: they may not look at a pooled connection for hours."""
        silent = [connection for connection in service.connections if connection.tls and connection.idle]
        service.close_idle()
        await self._until(lambda: service.connections.isdisjoint(silent), self._loop.time() + GOODBYE)
        for connection in silent:
            if connection in service.connections:
                connection.abort()

    async def _cancel(self, service: Service) -> None:
        """Cancel the requests that are left, each with a line in the log."""
        if service.active:
            reason = "the time to drain is over" if self.patient else "the stop is to be at once"
            for request in service.cancel(reason):
                log.warning("request cancelled, %s: %s", reason, request)
            self.deadline = self._loop.time() + UNWIND
            await self._until(lambda: not service.active)

    async def _until(self, done: Callable[[], bool], end: float = math.inf) -> None:
        """Wait for `done`, at most until `end` and until the deadline, which another order may move meanwhile.

        `end` is a grace for clients. It is put off by the time in which the loop stands still, because bytes that they
        have sent meanwhile are not read yet.
        """
        now = self._loop.time()
        while not done() and now < min(end, self.deadline):
            await asyncio.sleep(POLL)
            before, now = now, self._loop.time()
            end += max(0.0, now - before - POLL)
