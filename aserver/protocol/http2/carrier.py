"""The carrier of an exchange over HTTP/2: the request's body with its credit, the answer, and the deadlines of both.

Runs in the worker's loop. A carrier must never give a client credit for bytes that the application has not taken, nor
let an answer that was broken off look complete.
"""

from math import inf
from time import monotonic
from typing import Protocol

from aserver.errors import ClientError
from aserver.metrics.page import Awaited
from aserver.protocol.application.access_record import refusal
from aserver.protocol.application.body import HIGH_WATER
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.context import Context
from aserver.protocol.http2.encoder import BlockEncoder, encode_fields, encode_head
from aserver.protocol.http2.errors import CANCEL, INTERNAL_ERROR, NO_ERROR
from aserver.protocol.http2.request import StreamRequest
from aserver.protocol.http2.sender import Sender
from aserver.protocol.http2.streams import CLOSED, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, OPEN, Stream, Streams
from aserver.protocol.http2.waiting import WindowWait
from aserver.protocol.semantics.response import DONE, HEADED, START, Response
from aserver.protocol.semantics.response_head import Pairs
from aserver.protocol.transport.connection import BODY, LINGER_SECONDS, WINDOW, Connection


class StreamConnection(Protocol):
    """The connection, as its carriers and tunnels use it."""

    link: Connection
    context: Context
    tasks: Tasks
    encoder: BlockEncoder
    sender: Sender
    streams: Streams
    logged: tuple[object, ...] | None
    flush_due: bool  # `write_soon` has been called in this turn

    @property
    def open(self) -> bool:
        """Whether answers can be sent."""

    def write_soon(self) -> None:
        """Write the sender's frames, together with those of the rest of this turn."""

    def watch(self, deadline: float, awaited: Awaited) -> None:
        """Call `expire` of all carriers at `deadline`, or before."""


class StreamCarrier(Stream):
    """A stream that is the carrier of its exchange: see `application.exchange.Carrier`."""

    __slots__ = ("_connection", "_wait", "context", "exchange", "tasks")

    def __init__(self, connection: StreamConnection, number: int, send_window: int) -> None:
        # The first lines repeat `Stream.__init__`: to call it would be 1 % of a short request.
        self.id = number
        self.owner = None
        self.state = OPEN
        self.incoming = None
        self.send_window = send_window
        self.queue = None
        self.queued = 0
        self.trailers = None
        self.write_paused = False
        self.urgency = 3
        self.incremental = True
        self._connection = connection
        self.context = connection.context
        self.tasks = connection.tasks
        self.exchange: Exchange | None = None  # while it is set, `owner` is the carrier itself
        self._wait: WindowWait | None = None  # made when the client's windows first have no room

    @property
    def logged(self) -> tuple[object, ...] | None:
        """See `Http2Connection`: the access log's, for all streams."""
        return self._connection.logged

    @logged.setter
    def logged(self, logged: tuple[object, ...] | None) -> None:
        self._connection.logged = logged

    # ── the answer ───────────────────────────────────────────────────────────────────────────

    @property
    def open(self) -> bool:
        """See `Carrier`."""
        return not self.closed and self._connection.open

    @property
    def eof(self) -> bool:
        """See `Carrier`: in HTTP/2 no client closes its sending side and reads on."""
        return False

    @property
    def plain(self) -> None:
        """See `Carrier`: None, because other streams share the connection."""
        return None

    def send_interim(self, status: int, fields: Pairs) -> None:
        """See `Carrier`."""
        self._connection.sender.head(self, encode_head(status, fields), b"", end=False)
        self._connection.write_soon()

    def send_head(self, exchange: Exchange, body: bytes) -> None:
        """See `Carrier`."""
        connection = self._connection
        done = exchange.state is DONE
        head = exchange.head
        if done and body and self.state == HALF_CLOSED_REMOTE and head is not None:
            framed = connection.encoder.framed.get(head) or connection.encoder.frame(head)
            if framed is not None and connection.sender.whole(self, framed, body):  # the usual case
                self.owner = self.exchange = None  # as in `_part`
                tasks = self.tasks
                if tasks.observed:
                    tasks.record_end(exchange, exchange.status, exchange.started, exchange.sent)
                if exchange.waiters:
                    exchange.wake()
                if not connection.flush_due:
                    connection.write_soon()
                return
        connection.sender.head(self, connection.encoder.block(exchange), body, end=done)
        if done:
            self._answered(exchange)
        self._sent()

    def send_data(self, exchange: Exchange, body: bytes) -> None:
        """See `Carrier`."""
        done = exchange.state is DONE
        self._connection.sender.data(self, body, end=done)
        if done:
            self._answered(exchange)
        self._sent()

    def send_trailers(self, exchange: Exchange, fields: Pairs) -> None:
        """See `Carrier`."""
        self._connection.sender.trailers(self, encode_fields([(name.lower(), value) for name, value in fields]))
        self._answered(exchange)
        self._sent()

    def _sent(self) -> None:
        """Write soon. If a part has to wait for the client's windows, give the client a deadline."""
        if self.queued:
            wait = self._wait
            if wait is None:
                wait = self._wait = WindowWait(self.context, self._connection.sender, self)
            wait.begin()
            self._connection.watch(wait.deadline, WINDOW)
        self._connection.write_soon()

    def _answered(self, exchange: Exchange) -> None:
        """Record a complete answer. The rest of the request is dropped; a long rest is refused."""
        if self.tasks.observed:
            self.tasks.record_end(exchange, exchange.status, exchange.started, exchange.sent)
        if exchange.waiters:
            exchange.wake()
        state = self.state
        if state in (OPEN, HALF_CLOSED_LOCAL):
            self._hear_out(exchange)
        elif state >= CLOSED:
            self._part()

    def _part(self) -> None:
        """Let go of exchange and wait, so that no cycle is left for the garbage collector.

        Otherwise a client that resets its streams could make garbage faster than the collector removes it.
        """
        self.owner = self.exchange = self._wait = None

    def _reset(self, code: int) -> None:
        self._connection.sender.reset(self, code)
        self._part()

    def _hear_out(self, exchange: Exchange) -> None:
        """Wait for the end of the request: some clients take a reset for a failure, even after a whole answer."""
        body = exchange.request_body
        if body is not None:
            if HIGH_WATER < body.missing < inf and self.state == HALF_CLOSED_LOCAL:
                self._reset(NO_ERROR)
                return
            body.take(self)
            self._credit()
        self._await_body(LINGER_SECONDS)

    async def until_writable(self) -> None:
        """See `Carrier`."""
        if self._wait is not None:
            await self._wait.until_writable()

    def wake(self) -> None:
        """Let `until_writable` look again. If the stream is closed, let go of the exchange."""
        if self._wait is not None:
            self._wait.wake()
        if self.closed:
            self._part()

    # ── the request's body ───────────────────────────────────────────────────────────────────

    def take_body(self, data: bytes) -> None:
        """Give a piece of the body to the exchange."""
        exchange, incoming = self.exchange, self.incoming
        assert exchange is not None
        assert incoming is not None
        exchange.body_received(data)
        if exchange.state is not DONE:
            incoming.deadline = inf  # the client is not late: the application has to take it
            self._credit()
        elif incoming.window < HIGH_WATER and self.state == HALF_CLOSED_LOCAL:
            self._reset(NO_ERROR)

    def take_end(self) -> None:
        """Complete the request, because its body has ended."""
        exchange, incoming = self.exchange, self.incoming
        assert exchange is not None
        assert incoming is not None
        incoming.deadline = inf
        exchange.complete = True
        exchange.wake()
        if self.closed:
            self._part()

    def _credit(self) -> None:
        """Let the client send as many more bytes as the application has taken or as were dropped."""
        exchange, incoming = self.exchange, self.incoming
        body = None if exchange is None else exchange.request_body
        if body is not None and incoming is not None:
            taken = body.received - body.size
            if taken > incoming.credited and not self.closed:
                self._connection.sender.credit(self, taken - incoming.credited)
                incoming.credited = taken

    def await_body(self) -> None:
        """See `Carrier`."""
        if self.exchange is not None and not self.exchange.complete:
            self._await_body(self.context.body_timeout)
            self._credit()
            self._connection.write_soon()

    def _await_body(self, seconds: float) -> None:
        incoming = self.incoming
        assert incoming is not None
        incoming.deadline = self.context.now + seconds
        self._connection.watch(incoming.deadline, BODY)

    def pause_body(self) -> None:
        """See `Source`: nothing to do, because the client stops when its window is used up."""

    def resume_body(self) -> None:
        """See `Source`."""
        self._credit()
        self._connection.write_soon()

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def broken(self, exchange: Exchange) -> None:  # noqa: ARG002 - see `Carrier`: it is `self.exchange`
        """See `Carrier`."""
        self._connection.sender.reset(self, INTERNAL_ERROR)
        self.lost()
        self._connection.write_soon()

    def lost(self) -> None:
        """Tell the application that the client is gone, because the stream has ended."""
        exchange = self.exchange
        if exchange is not None and exchange.state is not DONE:
            exchange.disconnect()
            if exchange.launched:
                self.tasks.record(exchange)
        self.write_paused = False
        self.wake()
        self._part()

    def refuse(self, error: ClientError) -> None:
        """Answer with an error instead of the application, or break its answer off."""
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.state is START or exchange.state is HEADED:
            exchange.disconnect()
            self.turn_away(error, None)
            if self.closed:
                self._part()
        elif exchange.state is DONE:
            self._reset(NO_ERROR)
        else:
            self.broken(exchange)
        self._connection.write_soon()

    def turn_away(self, error: ClientError, request: StreamRequest | None) -> None:
        """Answer with an error, with a record for the access log.

        `request` is None if the request is `self.exchange` already.
        """
        connection, exchange = self._connection, self.exchange
        line = ("", b"", "") if request is None else (request.method, request.target, "2")
        head_only = line[0] == "HEAD" if exchange is None else exchange.head_only
        response = Response(connection.encoder.heads, True, head_only, False)
        body = response.answer(error.status)
        connection.sender.head(self, connection.encoder.block(response), body, end=True)
        if self.tasks.observed:
            client, headers = connection.link.client, [] if request is None else request.headers
            record = refusal(error.status, exchange, client=client, line=line, headers=headers, now=monotonic())
            self.tasks.record(record)
        if not self.complete:
            connection.sender.reset(self, NO_ERROR)
        elif not self.closed:  # the answer waits for the client's windows
            self.owner = self
            self._sent()

    # ── deadlines ────────────────────────────────────────────────────────────────────────────

    def expire(self, now: float) -> bool:
        """React to deadlines that have passed, and watch the next. Return whether the client was too slow."""
        slow = False
        incoming = self.incoming
        if incoming is not None:
            if incoming.deadline <= now:
                incoming.deadline = inf
                exchange = self.exchange
                if exchange is not None and exchange.state is DONE and self.state != HALF_CLOSED_LOCAL:
                    self._hear_out(exchange)  # the answer still waits for the windows
                else:
                    slow = True
                    self.refuse(ClientError(408, "request body timed out"))
            self._connection.watch(incoming.deadline, BODY)
        wait = self._wait
        if wait is not None:
            if wait.is_over(now):
                slow = True
                self._connection.sender.reset(self, CANCEL)
                self.lost()
                self._connection.write_soon()
            self._connection.watch(wait.deadline, WINDOW)
        return slow

    def postpone(self, seconds: float) -> None:
        """Put off the deadlines."""
        if self.incoming is not None:
            self.incoming.deadline += seconds
        if self._wait is not None:
            self._wait.deadline += seconds


def wake_owner(stream: Stream) -> None:
    """Let the owner of a stream send again. It is a function, since a bound method would make a cycle."""
    if stream.owner is not None:
        stream.owner.wake()
