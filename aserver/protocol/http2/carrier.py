"""The carrier of one exchange over HTTP/2: its body in with credit, its answer out, and its deadlines.

Runs in the worker's loop. A carrier must never give a client credit for bytes that the application has not taken, nor
let an answer that broke off look whole.
"""

from collections.abc import Mapping
from math import inf
from time import monotonic
from typing import Any, Protocol

from aserver.errors import ClientError
from aserver.metrics.page import Awaited
from aserver.protocol.application.access_record import refusal
from aserver.protocol.application.begin import begin_again, begin_exchange
from aserver.protocol.application.body import HIGH_WATER
from aserver.protocol.application.exchange import Carrier, Exchange
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.context import Context
from aserver.protocol.http2.encoder import BlockEncoder, encode_fields, encode_head
from aserver.protocol.http2.errors import CANCEL, INTERNAL_ERROR, NO_ERROR
from aserver.protocol.http2.request import StreamRequest
from aserver.protocol.http2.sender import Sender
from aserver.protocol.http2.streams import CLOSED, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, OPEN, Stream
from aserver.protocol.http2.waiting import WindowWait
from aserver.protocol.semantics.response import DONE, HEADED, START, Response
from aserver.protocol.semantics.response_head import Pairs
from aserver.protocol.transport.connection import BODY, LINGER_SECONDS, WINDOW, Connection


class StreamOwner(Protocol):
    """The connection of a carrier."""

    link: Connection
    context: Context
    tasks: Tasks
    encoder: BlockEncoder
    sender: Sender
    logged: tuple[Any, ...] | None
    flush_due: bool  # `write_soon` has been called in this turn

    @property
    def open(self) -> bool:
        """Whether answers can be sent."""

    def write_soon(self) -> None:
        """Write what the sender has, with all that comes in this turn."""

    def watch(self, deadline: float, awaited: Awaited) -> None:
        """Have `expire` called for all carriers at `deadline`, or before."""


class StreamCarrier:
    """See `application.exchange.Carrier`."""

    __slots__ = (
        "_credited",
        "_owner",
        "_sender",
        "_wait",
        "context",
        "deadline",
        "eof",
        "exchange",
        "stream",
        "tasks",
        "write_paused",
    )

    __deletable__ = ("exchange",)  # see `_part`; mypyc asks for it

    exchange: Exchange

    def __init__(self, owner: StreamOwner, stream: Stream) -> None:
        self._owner = owner
        self._sender = owner.sender
        self.context = owner.context
        self.tasks = owner.tasks
        self.stream = stream
        self.eof = False  # only HTTP/1 has clients that stop sending, and still read
        self._credited = 0  # bytes of the body for which the client has its credit back
        self.deadline = inf  # for the body
        self.write_paused = False
        self._wait: WindowWait | None = None  # for the client's windows

    @property
    def logged(self) -> tuple[Any, ...] | None:
        """The access log's; of the connection, whose requests say much the same."""
        return self._owner.logged

    @logged.setter
    def logged(self, logged: tuple[Any, ...] | None) -> None:
        self._owner.logged = logged

    # ── the answer ───────────────────────────────────────────────────────────────────────────

    @property
    def open(self) -> bool:
        """See `Carrier`."""
        return not self.stream.closed and self._owner.open

    @property
    def plain(self) -> None:
        """See `Carrier`: other streams share the connection."""
        return None

    def send_interim(self, status: int, fields: Pairs) -> None:
        """See `Carrier`."""
        self._sender.head(self.stream, encode_head(status, fields), b"", end=False)
        self._owner.write_soon()

    def send_head(self, exchange: Exchange, body: bytes) -> None:
        """See `Carrier`."""
        owner = self._owner
        stream = self.stream
        done = exchange.state is DONE
        head = exchange.head
        if done and body and stream.state == HALF_CLOSED_REMOTE and head is not None:
            framed = owner.encoder.framed.get(head) or owner.encoder.frame(head)
            if framed is not None and owner.sender.whole(stream, framed, body):  # as most are
                stream.owner = None  # as in `_part`
                del self.exchange
                if exchange.waiters or self.tasks.observed:
                    self._recorded(exchange)
                if not owner.flush_due:
                    owner.write_soon()
                return
        owner.sender.head(stream, owner.encoder.block(exchange), body, end=done)
        if done:
            self._answered(exchange)
        self._sent()

    def send_data(self, exchange: Exchange, body: bytes) -> None:
        """See `Carrier`."""
        done = exchange.state is DONE
        self._sender.data(self.stream, body, end=done)
        if done:
            self._answered(exchange)
        self._sent()

    def send_trailers(self, exchange: Exchange, fields: Pairs) -> None:
        """See `Carrier`."""
        self._sender.trailers(self.stream, encode_fields([(name.lower(), value) for name, value in fields]))
        self._answered(exchange)
        self._sent()

    def _sent(self) -> None:
        """Write soon, and watch what has to wait."""
        stream = self.stream
        if stream.queued:
            wait = self._wait
            if wait is None:
                wait = self._wait = WindowWait(self.context, self._sender, stream)
            wait.begin()
            self._owner.watch(wait.deadline, WINDOW)
            self.write_paused = stream.paused
        self._owner.write_soon()

    def _answered(self, exchange: Exchange) -> None:
        """Go on after a complete answer: what is missing of the request is dropped, or refused if it is much."""
        self._recorded(exchange)
        state = self.stream.state
        if state in (OPEN, HALF_CLOSED_LOCAL):
            self._hear_out(exchange)
        elif state >= CLOSED:
            self._part()

    def _part(self) -> None:
        """Leave no cycle of stream, carrier and exchange behind, whose end Python's collector would have to find.

        A client that resets its streams could otherwise make garbage faster than that looks for it.
        """
        if self.stream.owner is not None:
            self.stream.owner = None
            del self.exchange

    def _reset(self, code: int) -> None:
        self._sender.reset(self.stream, code)
        self._part()

    def _recorded(self, exchange: Exchange) -> None:
        if self.tasks.observed:
            self.tasks.record_end(exchange, exchange.status, exchange.started, exchange.sent)
        if exchange.waiters:
            exchange.wake()

    def _hear_out(self, exchange: Exchange) -> None:
        """Wait for the end of the request: some clients take a reset for a failure, though the answer is whole."""
        body = exchange.request_body
        if body is not None:
            if HIGH_WATER < body.missing < inf and self.stream.state == HALF_CLOSED_LOCAL:
                self._reset(NO_ERROR)
                return
            body.take(self)
            self._credit()
        self.deadline = self.context.now + LINGER_SECONDS
        self._owner.watch(self.deadline, BODY)

    async def until_writable(self) -> None:
        """See `Carrier`."""
        if self._wait is not None:
            await self._wait.until_writable()

    def wake(self) -> None:
        """Let `until_writable` look again, or part from a stream that is closed."""
        self.write_paused = self.stream.paused
        if self._wait is not None:
            self._wait.wake()
        if self.stream.closed:
            self._part()

    # ── the request's body ───────────────────────────────────────────────────────────────────

    def take_body(self, data: bytes) -> None:
        """Hand a piece of the body on."""
        self.exchange.body_received(data)
        if self.exchange.state is not DONE:
            self.deadline = inf  # now it is the application's turn
            self._credit()
        elif self.stream.receive_window < HIGH_WATER and self.stream.state == HALF_CLOSED_LOCAL:
            self._reset(NO_ERROR)

    def take_end(self) -> None:
        """Note the end of the body."""
        exchange = self.exchange
        self.deadline = inf
        exchange.complete = True
        exchange.wake()
        if self.stream.closed:
            self._part()

    def _credit(self) -> None:
        """Let the client send as many bytes as the application has taken, or as were dropped."""
        body = self.exchange.request_body
        if body is not None:
            taken = body.received - body.size
            if taken > self._credited and not self.stream.closed:
                self._sender.credit(self.stream, taken - self._credited)
                self._credited = taken

    def await_body(self) -> None:
        """See `Carrier`."""
        if not self.exchange.complete:
            self.deadline = self.context.now + self.context.body_timeout
            self._owner.watch(self.deadline, BODY)
            self._credit()
            self._owner.write_soon()

    def pause_body(self) -> None:
        """See `Carrier`: nothing to do, as the client sends as far as its window allows."""

    def resume_body(self) -> None:
        """See `Carrier`."""
        self._credit()
        self._owner.write_soon()

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def broken(self, exchange: Exchange) -> None:  # noqa: ARG002 - see `Carrier`; it is the stream's
        """See `Carrier`."""
        self._sender.reset(self.stream, INTERNAL_ERROR)
        self.lost()
        self._owner.write_soon()

    def lost(self) -> None:
        """Tell the application that nothing it sends reaches the client."""
        if self.stream.owner is None:
            return
        exchange = self.exchange
        if exchange.state is not DONE:
            exchange.disconnect()
            if exchange.launched:
                self.tasks.record(exchange)
        self.wake()
        self._part()

    def refuse(self, error: ClientError) -> None:
        """Answer instead of the application, or break off what it has begun."""
        exchange = self.exchange
        if exchange.state is START or exchange.state is HEADED:
            exchange.disconnect()
            refuse(self._owner, self.stream, error, exchange, None)
            if self.stream.closed:
                self._part()
        elif exchange.state is DONE:
            self._reset(NO_ERROR)
        else:
            self.broken(exchange)
        self._owner.write_soon()

    # ── deadlines ────────────────────────────────────────────────────────────────────────────

    def expire(self, now: float) -> bool:
        """React to deadlines that have passed, and ask for the next. Return whether the client was too slow."""
        slow = False
        if self.deadline <= now:
            self.deadline = inf
            if self.exchange.state is DONE and self.stream.state != HALF_CLOSED_LOCAL:
                self._hear_out(self.exchange)  # the answer is not out yet
            else:
                slow = True
                self.refuse(ClientError(408, "request body timed out"))
        self._owner.watch(self.deadline, BODY)
        wait = self._wait
        if wait is not None:
            if wait.is_over(now):
                slow = True
                self._sender.reset(self.stream, CANCEL)
                self.lost()
                self._owner.write_soon()
            self._owner.watch(wait.deadline, WINDOW)
        return slow

    def postpone(self, seconds: float) -> None:
        """Put off the deadlines."""
        self.deadline += seconds
        if self._wait is not None:
            self._wait.deadline += seconds


def begin(owner: StreamOwner, stream: Stream, request: StreamRequest) -> Exchange:
    """Return the exchange of a request, whose carrier owns the stream from now on. Raises ClientError."""
    carrier = StreamCarrier(owner, stream)
    scope = request.scope
    complete = stream.state == HALF_CLOSED_REMOTE
    if scope and complete:
        exchange = begin_again(
            carrier, owner.link, owner.encoder.heads, scope, request.target, request.method, "2", request.headers
        )
    else:
        framing = request.framing
        bodiless = complete and b"te" not in framing
        exchange = exchange_of(
            owner, carrier, request, None if bodiless else framing, 0 if complete else request.length
        )
        if scope is None:
            request.scope = {}  # most never come again, so that only the second is remembered
        elif complete and not (framing or request.forwarding):
            request.scope = {**exchange.scope}
        stream.patient = not complete
    carrier.exchange = exchange
    stream.owner = carrier
    exchange.launched = True
    return exchange


def exchange_of(
    owner: StreamOwner, carrier: Carrier, request: StreamRequest, framing: Mapping[bytes, bytes] | None, length: int
) -> Exchange:
    """Return the exchange of a request (see `begin_exchange`). Raises ClientError."""
    heads = owner.encoder.heads
    fields = request.headers
    return begin_exchange(  # by position, see there
        carrier,
        owner.link,
        heads,
        request.method,
        request.target,
        "2",
        fields,
        True,
        request.forwarding,
        framing,
        length,
    )


def refuse(
    owner: StreamOwner, stream: Stream, error: ClientError, exchange: Exchange | None, request: StreamRequest | None
) -> None:
    """Answer a request that cannot be served, with a record for the access log; it is `exchange`, or `request`."""
    line = ("", b"", "") if request is None else (request.method, request.target, "2")
    head_only = line[0] == "HEAD" if exchange is None else exchange.head_only
    response = Response(owner.encoder.heads, True, head_only, False)
    body = response.answer(error.status)
    owner.sender.head(stream, owner.encoder.block(response), body, end=True)
    if owner.tasks.observed:
        owner.tasks.record(
            refusal(
                error.status,
                exchange,
                client=owner.link.client,
                line=line,
                headers=[] if request is None else request.headers,
                now=monotonic(),
            )
        )
    if not stream.complete:
        owner.sender.reset(stream, NO_ERROR)


def wake_owner(stream: Stream) -> None:
    """Let the application of a stream send again; no bound method, so that no cycle keeps the connection."""
    if stream.owner is not None:
        stream.owner.wake()
