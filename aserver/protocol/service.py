"""The protocols of a worker, as `worker/server` uses them: connections, the drain, the sweep of deadlines.

Runs in the worker's loop (or the embedding program's). It must never open a listener or arm a timer: `worker/server`
calls `sweep()` about once a second, and decides when to drain, cancel and abort.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from aserver.asgi import ASGIApp, Scope
from aserver.config import Config
from aserver.log.access.record import AccessRecord, PlainLines
from aserver.metrics.page import Awaited
from aserver.protocol.application.tasks import Request, Tasks, describe
from aserver.protocol.context import Context
from aserver.protocol.drain_notice import Draining
from aserver.protocol.http1.connection import HttpConnection
from aserver.protocol.http1.encoder import Encoder
from aserver.protocol.http1.head import HeadCache
from aserver.protocol.http2.connection import Http2Connection
from aserver.protocol.http2.encoder import BlockEncoder
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.transport.connection import Connection, Handler
from aserver.protocol.transport.negotiate import ConnectionFactory, Negotiation
from aserver.protocol.websocket.connection import Socket
from aserver.protocol.websocket.departure import Departure
from aserver.protocol.websocket.session import WebSocket

try:
    from aserver.protocol.http1.plain import PlainRequests
except ImportError:  # not compiled
    PlainRequests = None  # type: ignore[assignment,misc]

log = logging.getLogger("aserver.error")


class Service:
    """The connections and the application's tasks of a worker, and the ways to end them.

    `access`, `lines`, `timed`, `on_limit`, `note` and `overdue`: see `Tasks`. `leaving`, where given, is the notice
    that the drain sets. Requests are counted if `metered`.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config,
        *,
        loop: asyncio.AbstractEventLoop,
        state: dict[str, Any],
        access: Callable[[AccessRecord], None] | None = None,
        lines: PlainLines | None = None,
        timed: bool = True,
        on_limit: Callable[[], None] | None = None,
        note: Callable[[bytes], None] | None = None,
        leaving: Draining | None = None,
        overdue: Callable[[Scope], str] | None = None,
        metered: bool = False,
    ) -> None:
        self.context = Context(config, loop=loop, state=state)
        self.context.metered = metered
        self.meter = self.context.meter
        self.connections = cast("set[Connection]", self.context.connections)
        if leaving is not None:
            self.context.leaving = leaving
        self.limits = RequestLimits(
            line=config.limit_request_line,
            fields=config.limit_request_fields,
            field_size=config.limit_request_field_size,
            body=config.limit_request_body,
        )
        self.heads = HeadCache()
        self.tasks = Tasks(
            app,
            config,
            loop=loop,
            variables=self.context.variables,
            access=access,
            lines=lines,
            timed=timed,
            on_limit=on_limit,
            note=note,
            overdue=overdue,
            meter=self.context.meter if metered else None,
        )
        self.encoder = Encoder(self.context.defaults)
        self.plain = None
        if PlainRequests is not None:
            self.plain = PlainRequests(self.tasks, self.context, self.encoder.heads, self.limits, self._ordinary)
        self.blocks = BlockEncoder(self.context.defaults)

    @property
    def load(self) -> int:
        """The number of connections, where each stream of HTTP/2 counts as a connection."""
        return len(self.connections) + self.context.more_streams

    @property
    def owed(self) -> list[Awaited]:
        """The reason of each client's next deadline."""
        return [connection.owes for connection in self.connections]

    @property
    def requests(self) -> int:
        """The number of requests that have ended."""
        return self.tasks.requests + (0 if self.plain is None else self.plain.requests)

    @property
    def active(self) -> int:
        """The number of requests whose application has not returned yet, answered or not."""
        return len(self.tasks.running)

    def protocol_factory(
        self,
        *,
        scheme: str = "http",
        tls: bool = False,
        h2c: bool = False,
        server: tuple[str, int | None] | None = None,
    ) -> Callable[[], asyncio.Protocol]:
        """Return a factory of protocols, as `loop.create_server` takes it.

        `tls` says that the transports are SSL transports, `h2c` that HTTP/2 may begin without TLS. `server` is the
        local address of all connections, if it is known: to ask each transport for it costs 1 us.
        """
        context, tasks, limits, blocks = self.context, self.tasks, self.limits, self.blocks
        http1 = self._ordinary if self.plain is None else self.plain.begin

        def chosen(link: Connection, http2: bool) -> Handler:  # noqa: FBT001
            return Http2Connection(link, tasks, blocks, limits) if http2 else http1(link)

        def negotiated(link: Connection) -> Handler:
            return Negotiation(link, chosen)

        begin = negotiated if context.config.http2 and (tls or h2c) else http1
        factory = ConnectionFactory(context, begin, scheme=scheme, tls=tls, server=server)
        return cast("Callable[[], asyncio.Protocol]", factory)

    def _ordinary(self, link: Connection) -> HttpConnection:
        return HttpConnection(link, self.tasks, self.encoder, self.limits, self.heads)

    def drain(self) -> None:
        """Begin to drain: each response from now on ends its connection (`Connection: close`). Idle connections stay.

        HTTP/2's connections send GOAWAY, and end when all their streams have ended.
        """
        self.context.draining = True
        self.context.leaving.set()
        for connection in list(self.connections):
            if isinstance(connection.handler, Http2Connection):
                connection.handler.leave()

    def end_websockets(self) -> None:
        """Cut the WebSockets that were closed, and cancel those of their applications that have not received that."""
        for socket in self._websockets():
            if socket.over:
                socket.tunnel.abort()
        for request in list(self.tasks.running):
            if isinstance(request, WebSocket) and request.socket.over and not request.socket.told:
                age = describe(request, self.context.loop.time())
                log.info("request cancelled, its WebSocket was closed by the stop: %s", age)
                request.cancel("the server stops")

    def close_idle(self) -> None:
        """Close connections with no request under way."""
        for connection in list(self.connections):
            if connection.idle:
                connection.close()

    def close_websockets(self, until: float) -> Departure:
        """Close WebSockets with 1012, spread over the time until `until`, so that not all clients return at once."""
        return Departure(self.context.loop, self._websockets(), until)

    @property
    def websockets(self) -> int:
        """The number of WebSockets."""
        return len(self._websockets())

    def _websockets(self) -> list[Socket]:
        found: list[Socket] = []
        for connection in self.connections:
            handler = connection.handler
            if isinstance(handler, Socket):
                found.append(handler)
            elif isinstance(handler, Http2Connection):
                found += handler.sockets
        return found

    def lasting(self) -> dict[object, str]:
        """Return the requests for which a final stop waits, each with its description (`Tasks.standing`).

        Streams and open WebSockets are left out, because the stop ends them.
        """

        def ends_soon(request: Request) -> bool:
            return request.open_ended or (isinstance(request, WebSocket) and not request.answered)

        return {each: self.tasks.standing(each) for each in self.tasks.running if not ends_soon(each)}

    def cancel(self, reason: str) -> list[str]:
        """Cancel the requests that still run, and close idle connections; return `GET /x, 31.2 s` for each request.

        When `active` is 0, all of them have ended.
        """
        cancelled = self.tasks.cancel(reason)
        self.close_idle()
        return cancelled

    def abort(self) -> None:
        """End every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    def postpone(self, seconds: float) -> None:
        """Put off all deadlines by the seconds that the loop stood still: the clients may have sent meanwhile.

        Connections that were accepted since then are included, because their deadlines are from an old `Context.now`.
        """
        for connection in self.connections:
            connection.postpone(seconds)
        self.tasks.postpone(seconds)

    def sweep(self, now: float) -> None:
        """Set the clock to `now`, the loop's time, renew the date, and end what is overdue."""
        self.context.tick(now)
        self.encoder.renew()
        self.blocks.renew()
        if self.plain is not None:
            self.plain.renew()
        for connection in [c for c in self.connections if c.deadline <= now or c.write_deadline <= now]:
            if connection.write_deadline <= now:
                connection.write_expired()
            elif connection.deadline <= now:
                connection.expire()
        self.tasks.sweep(now)
