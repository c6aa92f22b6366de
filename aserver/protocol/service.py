"""The protocol side of one worker, as its server sees it: connections, the drain, the sweep of deadlines.

Runs in the worker's loop (or the embedding program's). It opens no listener and arms no timer: the server calls
`sweep()` about once a second, and decides when to drain, cancel and abort.
"""

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import cast

from aserver.config import Config
from aserver.protocol.application import request_ids
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.context import Context
from aserver.protocol.http1.connection import HttpConnection
from aserver.protocol.peer.forwarded import Forwarding
from aserver.protocol.peer.trust import Peers
from aserver.protocol.transport.connection import OPEN, Connection
from aserver.protocol.websocket.departure import Departure
from aserver.protocol.websocket.session import WebSocketConnection

log = logging.getLogger("aserver.error")


class Service(Context):
    """What all connections of one worker share, and the handles to end them.

    `connections` is the set of open ones, `requests` counts finished requests (for `max_requests`), `active` those
    under way. `access`, when given, is called once for each finished response with an `AccessRecord`, which has
    a duration if that is to be `timed`; `on_limit` each time `limit_concurrency` turns a request away.
    """

    connections: set[Connection]

    def choose(self, config: Config) -> None:
        """See `Context`."""
        self.exchange = Exchange
        if request_ids.wanted(config):
            request_ids.IdentifiedExchange.renew()
            self.exchange = request_ids.IdentifiedExchange
        if config.proxy_headers:
            self.forwarding = Forwarding(Peers(config.forwarded_allow_ips))

    @property
    def active(self) -> int:
        """Requests whose application has not returned yet, answered or not."""
        return len(self.running)

    def protocol_factory(
        self, *, scheme: str = "http", tls: bool = False, server: tuple[str, int | None] | None = None
    ) -> Callable[[], asyncio.Protocol]:
        """Return what `loop.create_server` wants.

        `tls` says that the transport is an SSL transport; `server` what all connections have as their own end, if it
        is known: asking each costs 1 us.
        """

        def make() -> HttpConnection:
            return HttpConnection(self, scheme=scheme, tls=tls, server=server)

        return cast("Callable[[], asyncio.Protocol]", make)

    def drain(self) -> None:
        """From now on responses carry `Connection: close`, and the connection ends after them; idle ones stay."""
        self.draining = True
        self.leaving.set()

    def stop_streams(self) -> None:
        """Give each stream `stream_grace` from now on, or from when it begins; call `end_streams` after that."""
        self.stopping = True
        self.patience = min(self.config.disconnect_grace, self.config.stream_grace)
        self.end_streams(self.loop.time())

    def end_streams(self, now: float) -> None:
        """End what has been a stream for `stream_grace`; `sweep` sees to those that begin later."""
        grace = self.config.stream_grace
        for request in list(self.running):
            if request.open_ended and now - self._streams.setdefault(request, now) >= grace:
                request.end_stream()

    def end_websockets(self) -> None:
        """Cut the connections of WebSockets that were told to leave, and cancel applications that never looked."""
        for socket in [each for each in self.connections if isinstance(each, WebSocketConnection)]:
            if socket.over:
                socket.abort()
        for request in list(self.running):
            if isinstance(request, WebSocketConnection) and request.over and not request.told:
                log.info(
                    "request cancelled, its WebSocket was closed by the stop: %s", request.describe(self.loop.time())
                )
                request.cancel("the server stops")

    def close_idle(self) -> None:
        """Close connections with no request under way."""
        for connection in list(self.connections):
            if connection.idle:
                connection.close()

    def close_websockets(self, until: float) -> Departure:
        """Close WebSockets with 1012, spread until `until` (of the loop's clock), lest all come back at once."""
        sockets = [each for each in self.connections if isinstance(each, WebSocketConnection)]
        return Departure(self.loop, sockets, until)

    def cancel(self, reason: str) -> list[str]:
        """Cancel the requests that still run; return `GET /x, 31.2 s` for each.

        Who has got no answer yet gets 503, the others a connection that is broken off. The applications' tasks
        need some turns of the loop to end; `active` tells.
        """
        now = self.loop.time()
        running = list(self.running)
        for request in running:
            # Not at once: a task that is cancelled before its first step never runs the `finally` that ends a request.
            self.loop.call_soon(request.cancel, reason)
        self.close_idle()
        return [request.describe(now) for request in running]

    def abort(self) -> None:
        """End every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    def postpone(self, seconds: float) -> None:
        """Put off all deadlines: so long it was our loop that stood still, not the clients.

        What they sent meanwhile is still in the kernel, and who came after it has been given a deadline by the clock
        of before.
        """
        for connection in self.connections:
            connection.postpone(seconds)
        self.abandoned = {request: deadline + seconds for request, deadline in self.abandoned.items()}

    def sweep(self, now: float) -> None:
        """Take the clock (seconds of the loop), renew the date, and end what has overrun a deadline."""
        self.now = now
        self.tick_date()
        late = [c for c in self.connections if c.deadline <= now or c.write_deadline <= now]
        for connection in late:
            if connection.write_deadline <= now:
                connection.write_expired()
            elif connection.stage is OPEN or connection.deadline <= now:
                connection.expire()
        if self.abandoned:
            self._end_abandoned(now)
        if self.stopping:
            self.end_streams(now)

    def _end_abandoned(self, now: float) -> None:
        """End answers that go on though their client left `patience` ago, or has been taken for gone.

        A request whose answer has not begun is left alone: what it does must not end half done.
        """
        for request, deadline in list(self.abandoned.items()):
            if request not in self.running or request.answered:
                del self.abandoned[request]
            elif deadline == inf:
                if request.begun:
                    self.abandoned[request] = now + self.patience
            elif deadline <= now:
                cancelled = request.abandon()
                del self.abandoned[request]
                if cancelled:
                    reason = "the stop has ended its stream" if self.stopping else "its client has gone"
                    log.info("request cancelled, %s: %s", reason, request.describe(now))
