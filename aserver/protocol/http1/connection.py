"""HTTP/1.0 and 1.1 on a connection: exchanges out of what the reader tells, in order, and how they end.

Runs in the worker's loop. `RequestReader` reads; the application is started when it has returned, never from inside one
of its calls, which may come from the parser.
"""

import logging
from collections.abc import Coroutine, Mapping
from math import inf
from time import monotonic
from typing import Any, Final

from aserver.errors import ClientError
from aserver.protocol.application.access_record import Refusal
from aserver.protocol.application.body import RequestBody
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.origin import apply_origin
from aserver.protocol.application.parting import HEAR_OUT
from aserver.protocol.application.scope import SLASH, make_scope
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.http1.encoder import Encoder, is_close_delimited
from aserver.protocol.http1.head_cache import HeadCache
from aserver.protocol.http1.reader import BETWEEN, OVER, RequestReader
from aserver.protocol.http1.sink import CHUNKED, Headers
from aserver.protocol.http1.upgrade import UpgradeAnswer
from aserver.protocol.semantics import fields
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.response import DONE, HEADED, START, TRAILERS, Response
from aserver.protocol.semantics.response_head import Pairs
from aserver.protocol.semantics.target import split_target
from aserver.protocol.transport.connection import (
    BODY,
    FIRST_REQUEST,
    HEAD,
    NEXT_REQUEST,
    NOTHING,
    OPEN,
    Connection,
)
from aserver.protocol.transport.read_gate import Pause
from aserver.protocol.websocket import session

log: Final = logging.getLogger("aserver.error")

#: Requests that wait for the current one's response; above it, reading pauses.
PIPELINE_LIMIT: Final = 16


class HttpConnection:
    """HTTP/1 on a connection, its `link`: the handler of what comes, and the carrier of exchanges."""

    __slots__ = (
        "_offered",
        "_queue",
        "_refusal",
        "_refused",
        "context",
        "current",
        "encoder",
        "eof",
        "link",
        "logged",
        "reader",
        "receiving",
        "tasks",
        "write_paused",
    )

    def __init__(
        self, link: Connection, tasks: Tasks, encoder: Encoder, limits: RequestLimits, heads: HeadCache
    ) -> None:
        self.link = link
        self.context = link.context
        self.write_paused = False
        self.logged: tuple[Any, ...] | None = None  # the access log's, which formats the same fields again and again
        self.tasks = tasks
        self.encoder = encoder
        self.eof = False  # the client has shut down its sending side; it may still read
        self.current: Exchange | None = None  # the exchange whose response is due
        self.receiving: Exchange | None = None  # the exchange whose body is being read
        self._queue: list[Exchange] = []  # read, not begun; an idle deque has 0.7 KB
        self._offered: Exchange | None = None  # becomes a WebSocket when its turn comes
        self._refusal: ClientError | None = None  # to be answered when the queue is empty
        self._refused: Exchange | None = None  # the exchange whose body was bad, if its head was good
        self.reader = RequestReader(self, limits, heads)

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Read, then start what can be started."""
        reader = self.reader
        if not reader.take_known(data):
            error = None
            try:
                reader.feed(data)
            except ClientError as refusal:
                error = refusal
            if error is not None:  # not above: what is raised while another error is handled, forgets its own cause
                self.refuse(error)
        current = self.current
        if current is not None and not current.launched and not self.write_paused:
            self.launch(current)
        if reader.phase is not BETWEEN:
            self._after_piece(data)

    def _after_piece(self, data: bytes) -> None:
        """See to what a piece has left behind: a head without its end, an offer, or bytes behind the last request."""
        reader = self.reader
        if self._offered is not None:
            if self._offered is self.current:
                self._hand_over(self._offered)
        elif reader.in_head:
            if self.link.awaited is not HEAD:
                self.link.awaited = HEAD
                self.link.deadline = self.context.now + self.context.header_timeout
        elif reader.phase is OVER and self.link.stage is OPEN:
            self.link.discard(data)

    def on_spent(self) -> None:
        """Let others have their turn; what is read meanwhile would have to be kept."""
        self.link.gate.pause(Pause.TURN)
        self.context.fair_queue.wait(self._take_turn)

    def _take_turn(self) -> None:
        reader = self.reader
        reader.spent = False
        self._go_on()
        if not reader.spent and self.link.stage is OPEN:
            self.link.gate.resume(Pause.TURN)

    def _consider_room(self) -> None:
        """Read on if few enough requests wait: at once, or, if some are read already, once half of them are begun."""
        reader, waiting = self.reader, len(self._queue)
        if not reader.unread:
            if waiting < PIPELINE_LIMIT:
                reader.paused = False
                self.link.gate.resume(Pause.PIPELINE)
        elif waiting == PIPELINE_LIMIT // 2:
            # Not from here: this may be a call of the reader's, or deep in an application.
            self.context.loop.call_soon(self._make_room, context=self.context.variables)

    def _make_room(self) -> None:
        """Read on, now that fewer requests wait."""
        reader = self.reader
        reader.paused = False
        self._go_on()
        if not reader.paused and self.link.stage is OPEN:
            self.link.gate.resume(Pause.PIPELINE)

    def _go_on(self) -> None:
        """Read what had to wait, if it still matters."""
        if self.link.stage is OPEN:
            self.data_received(b"")
        else:
            self.reader.stop()

    # ── calls of the reader ──────────────────────────────────────────────────────────────────

    def on_request(  # noqa: PLR0917 - see RequestSink
        self,
        method: str,
        target: bytes,
        version: str,
        headers: Headers,
        keep_alive: bool,  # noqa: FBT001
        forwarding: Mapping[bytes, bytes],
        framing: Mapping[bytes, bytes] | None,
        length: int,
    ) -> None:
        """Make an exchange of a head that was found good, and put it behind those that wait."""
        if target[0] != SLASH:
            authority = split_target(method, target)[2]
            if authority is not None:  # it wins over Host (RFC 9112 section 3.2.2)
                headers = [(b"host", authority), *[pair for pair in headers if pair[0] != b"host"]]
        scope = make_scope(self.link, method, target, version, headers)
        exchange = Exchange(self, self.encoder.heads, scope, target, method, version, headers, keep_alive)
        if framing is None:
            exchange.complete = True
        else:
            self._prepare(exchange, framing, length)
        if forwarding:
            apply_origin(self.link, forwarding, exchange)
        if self.current is None:
            self.current = exchange
        else:
            self._queue.append(exchange)
            if len(self._queue) == PIPELINE_LIMIT:
                self.reader.paused = True
                self.link.gate.pause(Pause.PIPELINE)
        self.link.awaited = NOTHING
        self.link.deadline = inf

    def _prepare(self, exchange: Exchange, framing: Mapping[bytes, bytes], length: int) -> None:
        """Set what the less usual fields ask for."""
        if length:
            self.receiving = exchange
            exchange.request_body = RequestBody(
                None if length == CHUNKED else length, continue_expected=exchange.modern and b"expect" in framing
            )
        else:
            exchange.complete = True
        if exchange.modern:
            te = framing.get(b"te")
            if te is not None and fields.accepts_trailers(te):
                exchange.trailers_allowed = True
                exchange.scope["extensions"]["http.response.trailers"] = {}
        else:
            del exchange.scope["extensions"]["http.response.early_hint"]

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on."""
        exchange = self.receiving
        if exchange is None:
            return
        if exchange is self.current:
            self.link.awaited = BODY
            self.link.deadline = self.context.now + self.context.body_timeout
        exchange.body_received(data)

    def on_end(self) -> None:
        """Note the end of the body that was being read."""
        exchange = self.receiving
        if exchange is None:
            return
        self.receiving = None
        exchange.complete = True
        if exchange is self.current:
            self.link.await_nothing()
            if exchange.state is DONE:
                self._next()
            elif exchange.launched:
                exchange.wake()

    # ── the carrier of exchanges ─────────────────────────────────────────────────────────────

    @property
    def open(self) -> bool:
        """See `Carrier`."""
        return self.link.stage is OPEN

    def send_interim(self, status: int, fields: Pairs) -> None:
        """See `Carrier`."""
        self.link.writer.write(self.encoder.interim(status, fields))

    def send_head(self, exchange: Exchange, body: bytes) -> None:
        """See `Carrier`."""
        if not exchange.complete or self.context.draining:
            self._consider_close(exchange)
        data = self.encoder.first(exchange, body)
        writer = self.link.writer
        if exchange.state is DONE and writer.held is None and isinstance(data, bytes):  # as nearly always
            writer.write_answer(data)
            self.answered(exchange)
        else:
            self._send(exchange, data)

    def send_data(self, exchange: Exchange, body: bytes) -> None:
        """See `Carrier`."""
        self._send(exchange, self.encoder.piece(exchange, body))

    def send_trailers(self, exchange: Exchange, fields: Pairs) -> None:
        """See `Carrier`."""
        self._send(exchange, self.encoder.trailers(exchange, fields))

    def _send(self, exchange: Exchange, data: bytes | list[bytes]) -> None:
        """Write what belongs together with what comes before or after it; go on if the response is complete."""
        writer = self.link.writer
        if exchange.state is not DONE:
            writer.write_soon(data)
            return
        if writer.held is None and isinstance(data, bytes):
            if data:
                writer.write_answer(data)
        else:
            writer.write_soon(data)
            if self.last():
                writer.flush()
        self.answered(exchange)

    def _consider_close(self, exchange: Exchange) -> None:
        """Before the head is made: announce a close that is already known."""
        if self.context.draining and self.last():
            exchange.keep_alive = False
        if (exchange.state is DONE or exchange.state is TRAILERS) and not exchange.discardable:
            exchange.keep_alive = False

    def await_body(self) -> None:
        """Give the client `body_timeout` for the next piece of the current request's body, unless it is complete."""
        if self.receiving is not None and self.receiving is self.current:
            self.link.awaited = BODY
            self.link.deadline = self.context.now + self.context.body_timeout

    def until_writable(self) -> Coroutine[Any, Any, None]:
        """See `Carrier`."""
        return self.link.until_writable()

    def pause_body(self) -> None:
        """Read nothing, because the application does not take the body as fast as it comes."""
        self.link.gate.pause(Pause.BODY)
        self.link.await_nothing()  # it is the application that is slow

    def resume_body(self) -> None:
        """Read on, now that the application has taken what there was."""
        self.link.gate.resume(Pause.BODY)
        self.await_body()

    # ── WebSockets ───────────────────────────────────────────────────────────────────────────

    def on_offer(self) -> bool:
        """Tell whether the last request asks for a WebSocket; if requests before it have no answer yet, it waits."""
        exchange = self._queue[-1] if self._queue else self.current
        if exchange is None or exchange.launched or not session.is_offered(exchange):
            return False
        self._offered = exchange
        if self._queue:
            self.link.gate.pause(Pause.OFFER)
        else:
            exchange.launched = True
        return True

    def _hand_over_soon(self, exchange: Exchange) -> None:
        """Hand the connection over for the offer that waited; not now, deep in an application that has answered."""
        exchange.launched = True
        self.context.loop.call_soon(self._hand_over_waiting, exchange, context=self.context.variables)

    def _hand_over_waiting(self, exchange: Exchange) -> None:
        if self.current is exchange and self.link.stage is OPEN:
            self._hand_over(exchange)

    def _hand_over(self, exchange: Exchange) -> None:
        self.current = self._offered = None
        rest = self.reader.take_rest()
        self.reader.close()
        link = self.link
        link.writer.flush()
        link.gate.open()  # a long head may have been read in several turns
        session.take_over(link, self.tasks, UpgradeAnswer(self.encoder, link.writer), exchange, rest)

    # ── requests in order ────────────────────────────────────────────────────────────────────

    def launch(self, exchange: Exchange) -> None:
        """Start the application for a request whose turn has come."""
        tasks = self.tasks
        exchange.launched = True
        if tasks.timed:
            exchange.started = monotonic()  # uvloop's clock, but in full: that has milliseconds
        if not tasks.start(exchange):
            exchange.refuse(503)

    def answered(self, exchange: Exchange) -> None:
        """Go on after a complete response."""
        tasks = self.tasks
        if tasks.access is not None:
            if tasks.timed:
                exchange.duration = monotonic() - exchange.started
            tasks.access(exchange)
        if exchange.waiters:
            exchange.wake()
        if not exchange.keep_alive:
            self.current = None
            if self.reader.phase is OVER and self._refusal is None and exchange.complete and not self._queue:
                self.link.close()
            else:
                self.link.linger()
        elif exchange.complete:
            if exchange.request_body is not None and exchange.request_body.size:
                exchange.request_body.take(self)  # for as long as the application has left it there, nothing is read
            self.current = None
            if self.link.awaited is not HEAD:
                self.link.awaited = NEXT_REQUEST
                self.link.deadline = self.context.now + self.context.keep_alive
            if self._queue or self._refusal is not None or self.eof:
                self._next()
        elif exchange.discardable and exchange.request_body is not None:
            self.await_body()
            exchange.request_body.take(self)  # the rest is dropped as it comes
        else:
            self.link.linger()

    def _next(self) -> None:
        """Begin what waits behind the request that was answered."""
        self.current = None
        queue = self._queue
        if queue:
            exchange = self.current = queue.pop(0)
            if self.link.writer.held is None:
                self.link.writer.hold(pipelined=True)
            if self.link.awaited is not HEAD:
                self.link.await_nothing()
            if self.reader.paused:
                self._consider_room()
            if exchange is self._offered:
                self._hand_over_soon(exchange)
            elif not self.write_paused:
                self.launch(exchange)
            if self.eof:
                self._hear_out(exchange)
        elif self._refusal is not None:
            self._answer_refusal(self._refusal, self._refused)
        elif self.eof and not self.reader.unread:
            self.link.close()
        elif self.link.awaited is not HEAD:
            self.link.awaited = NEXT_REQUEST
            self.link.deadline = self.context.now + self.context.keep_alive

    def writable(self) -> None:
        """Start what had to wait for the client to read."""
        current = self.current
        if current is not None and not current.launched:
            self.launch(current)

    def last(self) -> bool:
        """Tell whether no request waits behind the current one."""
        return not self._queue and not self.reader.unread

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def refuse(self, error: ClientError) -> None:
        """Answer a request that cannot be served, when its turn comes, and read no other."""
        if self.link.stage is not OPEN:
            return
        self.reader.stop()
        broken, self.receiving = self.receiving, None
        if broken is not None:
            if broken is not self.current:
                self._refused = self._queue.pop()  # only the last one parsed can be incomplete
            elif broken.state in (START, HEADED):
                broken.disconnect()
                self.current = None
                self._answer_refusal(error, broken)
                return
            elif broken.state is DONE:
                self.link.linger()
                return
            else:
                self.broken(broken)
                return
        if self.current is None:
            self._answer_refusal(error)
        else:
            self._refusal = error

    def _answer_refusal(self, error: ClientError, exchange: Exchange | None = None) -> None:
        log.debug("%s:%s is answered %d: %s", *(self.link.client or ("a client", "-")), error.status, error.reason)
        head = self.reader.head
        line = (None if head is None else head.line) or ("", b"", "")
        head_only = line[0] == "HEAD" if exchange is None else exchange.head_only
        response = Response(self.encoder.heads, True, head_only, False)
        self.link.writer.write_soon(self.encoder.first(response, response.answer(error.status)))
        if self.tasks.access is not None:
            self.tasks.access(
                Refusal(
                    error.status,
                    exchange,
                    client=self.link.client,
                    line=line,
                    headers=[] if head is None else head.fields,
                    now=monotonic(),
                )
            )
        self.link.linger()

    def broken(self, exchange: Exchange) -> None:
        """End the connection, because this response cannot be completed."""
        self._log(exchange)
        exchange.disconnect()
        self.current = None
        if is_close_delimited(exchange):
            self.link.reset()
        else:
            self.link.close()

    def eof_received(self) -> bool:
        """Take the client's half-close: what it has asked for completely is still answered."""
        current = self.current
        if self.link.tls or self.receiving is not None or current is None:
            return False
        self.eof = True
        self._hear_out(current)
        return True

    def _hear_out(self, exchange: Exchange) -> None:
        """Let a client that has stopped sending have its answer, and tell the application if that takes long."""
        context = self.context
        context.loop.call_later(HEAR_OUT, exchange.half_closed, context=context.variables)

    def postpone(self, seconds: float) -> None:
        """Do nothing: all deadlines are the connection's."""

    def cut(self) -> None:
        """Do nothing before `lost`, which follows."""

    def lost(self) -> None:
        """Tell the application, and let go of the reader, which holds the connection."""
        current, self.current = self.current, None
        self.receiving = None
        self._queue.clear()
        self._offered = None
        self.reader.close()
        if current is not None:
            current.disconnect()
            if current.state is not DONE and current.launched:
                self._log(current)

    def _log(self, exchange: Exchange) -> None:
        """Write to the access log, if there is one, what ended before its time."""
        if self.tasks.access is not None:
            exchange.duration = monotonic() - exchange.started
            self.tasks.access(exchange)

    def expire(self) -> None:
        """React to `deadline` having passed."""
        awaited = self.link.awaited
        if self.link.gate.reasons - {Pause.TURN}:
            self.link.await_nothing()  # it is the application that is late
        elif awaited is BODY:
            self.refuse(ClientError(408, "request body timed out"))
        elif awaited is HEAD:
            self.refuse(ClientError(408, "request head timed out"))
        elif awaited is FIRST_REQUEST or awaited is NEXT_REQUEST:
            self.link.close()

    @property
    def idle(self) -> bool:
        """Whether no request is under way, also none half received."""
        reader = self.reader
        return self.current is None and not reader.in_head and not reader.unread
