"""HTTP/1.0 and 1.1 on a connection: requests become exchanges, which are answered in order.

Runs in the worker's loop. `RequestReader` reads the bytes. The application must never be started inside a call of the
reader, which may come from the parser, but only after the reader has returned.
"""

from collections.abc import Coroutine, Mapping
from math import inf
from typing import Any

from aserver.errors import ClientError
from aserver.protocol.application.begin import begin_exchange
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.parting import HEAR_OUT
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.http1.answers import UpgradeAnswer, answer_refusal
from aserver.protocol.http1.encoder import Encoder, is_close_delimited
from aserver.protocol.http1.head import HeadCache, Headers
from aserver.protocol.http1.pipeline import Pipeline
from aserver.protocol.http1.reader import BETWEEN, OFFER, OVER, RequestReader
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.response import DONE, HEADED, START, TRAILERS
from aserver.protocol.semantics.response_head import Pairs
from aserver.protocol.transport.connection import BODY, HEAD, NEXT_REQUEST, NOTHING, SERVING, Connection, Handler
from aserver.protocol.transport.read_gate import Pause
from aserver.protocol.websocket import session


class HttpConnection(Handler):
    """HTTP/1 on a connection, its `link`: the handler of its bytes, and the carrier of exchanges."""

    __slots__ = (
        "context",
        "current",
        "encoder",
        "eof",
        "link",
        "logged",
        "pipeline",
        "reader",
        "receiving",
        "tasks",
    )

    def __init__(
        self, link: Connection, tasks: Tasks, encoder: Encoder, limits: RequestLimits, heads: HeadCache
    ) -> None:
        self.link = link
        self.context = link.context
        self.write_paused = False
        self.logged: tuple[object, ...] | None = None  # set by the access log: fields that it has formatted
        self.tasks = tasks
        self.encoder = encoder
        self.eof = False  # the client has closed its sending side, and may still read
        self.current: Exchange | None = None  # the exchange that is answered now
        self.receiving: Exchange | None = None  # the exchange whose body is being read
        self.pipeline: Pipeline | None = None  # requests that wait behind `current`; None if there are none
        self.reader = RequestReader(self, limits, heads)

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Read the bytes, then start the application for the current request, if that is not done."""
        reader = self.reader
        if not reader.take_known(data):
            error = None
            try:
                reader.feed(data)
            except ClientError as refusal:
                error = refusal
            if error is not None:  # outside `except`: an exception raised there would get this as its context
                self.refuse(error)
        current = self.current
        if current is not None and not current.launched and not self.write_paused:
            current.launched = True
            self.tasks.start(current)
        if reader.phase is not BETWEEN:
            self._after_piece(data)

    def _after_piece(self, data: bytes) -> None:
        """React to a piece that ends inside a head, after an offer of a WebSocket, or after the last request."""
        reader, link = self.reader, self.link
        if reader.phase is OFFER:
            self._hand_over()
        elif reader.in_head:
            if link.awaited is not HEAD:
                link.expect(HEAD, self.context.header_timeout)
        elif reader.phase is OVER and link.stage is SERVING:
            link.discard(data)

    def on_spent(self) -> None:
        """Let other connections go on first. Until then nothing is read, because the bytes would have to be kept."""
        self.link.gate.pause(Pause.TURN)
        self.context.fair_queue.wait(self._take_turn)

    def _take_turn(self) -> None:
        self.reader.spent = False
        self._read_on()

    def _read_on(self) -> None:
        """Read the bytes that had to wait, then let the transport read again."""
        reader, link = self.reader, self.link
        if link.stage is not SERVING:
            reader.stop()
            return
        self.data_received(b"")
        if not reader.closed and link.stage is SERVING:  # else a WebSocket has the gate
            if not reader.spent:
                link.gate.resume(Pause.TURN)
            if not reader.paused:
                link.gate.resume(Pause.PIPELINE)

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
        """Make an exchange of a request. It is the current one, or waits in the pipeline."""
        link = self.link
        exchange = begin_exchange(
            self, link, self.encoder.heads, method, target, version, headers, keep_alive, forwarding, framing, length
        )
        if length:
            self.receiving = exchange
        if self.current is None:
            self.current = exchange
        else:
            if self.pipeline is None:
                self.pipeline = Pipeline(link, self.reader, self._read_on)
            self.pipeline.add(exchange)
        link.awaited = NOTHING
        link.deadline = inf

    def on_body(self, data: bytes) -> None:
        """Give a piece of the body to its exchange."""
        if self.receiving is not None:
            self.await_body()
            self.receiving.body_received(data)

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
        return self.link.stage is SERVING

    @property
    def plain(self) -> Connection | None:
        """See `Carrier`."""
        return None if self.link.tls else self.link

    def send_interim(self, status: int, fields: Pairs) -> None:
        """See `Carrier`."""
        self.link.writer.write(self.encoder.interim(status, fields))

    def send_head(self, exchange: Exchange, body: bytes) -> None:
        """See `Carrier`."""
        if not exchange.complete or self.context.draining:
            self._consider_close(exchange)
        data = self.encoder.first(exchange, body)
        writer = self.link.writer
        if exchange.state is DONE and writer.held is None and isinstance(data, bytes):  # the usual case
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
        """Write bytes of a response, small pieces together. If it is complete, go on to the next request."""
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
        """Turn `keep_alive` off, before the head is made, if the connection will end with this response."""
        if self.context.draining and self.last():
            exchange.keep_alive = False
        if (exchange.state is DONE or exchange.state is TRAILERS) and not exchange.discardable:
            exchange.keep_alive = False

    def await_body(self) -> None:
        """Give the client `body_timeout` for the next piece of the current request's body, unless it is complete."""
        if self.receiving is not None and self.receiving is self.current:
            self.link.expect(BODY, self.context.body_timeout)

    def until_writable(self) -> Coroutine[Any, Any, None]:
        """See `Carrier`."""
        return self.link.until_writable()

    def pause_body(self) -> None:
        """See `Source`."""
        self.link.gate.pause(Pause.BODY)
        self.link.await_nothing()  # the client is not late: the application is slow

    def resume_body(self) -> None:
        """See `Source`."""
        self.link.gate.resume(Pause.BODY)
        self.await_body()

    def on_offer(self) -> bool:
        """Tell whether the last request asks for a WebSocket. It waits if requests before it have no answer yet."""
        exchange = self.current if self.pipeline is None else self.pipeline.exchanges[-1]
        if exchange is None or exchange.launched or not session.is_offered(exchange):
            return False
        if exchange is self.current:
            exchange.launched = True
        else:
            self.link.gate.pause(Pause.OFFER)
        return True

    def _hand_over(self) -> None:
        """Make a WebSocket of the connection, if no other request is before it."""
        exchange, link = self.current, self.link
        if exchange is not None and self.pipeline is None and self.reader.phase is OFFER and link.stage is SERVING:
            self.current = None
            rest = self.reader.take_rest()
            self.reader.close()
            session.take_over(link, self.tasks, UpgradeAnswer(self.encoder, link.writer), exchange, rest)

    # ── requests in order ────────────────────────────────────────────────────────────────────

    def answered(self, exchange: Exchange) -> None:
        """Go on after a complete response."""
        if self.tasks.observed:
            self.tasks.record_end(exchange, exchange.status, exchange.started, exchange.sent)
        if exchange.waiters:
            exchange.wake()
        if not exchange.keep_alive:
            self.current = None
            if self.reader.phase is OVER and self.pipeline is None and exchange.complete:
                self.link.close()
            else:
                self.link.linger()
        elif exchange.complete:
            if exchange.request_body is not None and exchange.request_body.size:
                exchange.request_body.take(self)  # drops it, and resumes reading
            if self.pipeline is not None or self.eof:
                self._next()
            else:
                self.current = None
                if self.link.awaited is not HEAD:
                    self.link.awaited = NEXT_REQUEST
                    self.link.deadline = self.context.now + self.context.keep_alive
        elif exchange.discardable and exchange.request_body is not None:
            self.await_body()
            exchange.request_body.take(self)  # the rest is dropped as it comes
        else:
            self.link.linger()

    def _next(self) -> None:
        """Go on with the next request of the pipeline, or wait for the client to send another."""
        pipeline = self.pipeline
        if pipeline is not None and pipeline.exchanges:
            exchange = self.current = pipeline.pop()
            if not pipeline.exchanges and pipeline.refusal is None:
                self.pipeline = None
                if self.reader.phase is OFFER:
                    exchange.launched = True  # in the next turn, as this may be inside the application's `send()`
                    self.context.loop.call_soon(self._hand_over, context=self.context.variables)
            if not (exchange.launched or self.write_paused):
                exchange.launched = True
                self.tasks.start(exchange)
            if self.eof:
                self._hear_out(exchange)
            return
        self.current = None
        if pipeline is not None and pipeline.refusal is not None:
            answer_refusal(self.link, self.encoder, self.tasks, *pipeline.refusal, head=self.reader.head)
        elif self.eof and not self.reader.unread:
            self.link.close()
        elif self.link.awaited is not HEAD:
            self.link.awaited = NEXT_REQUEST
            self.link.deadline = self.context.now + self.context.keep_alive

    def writable(self) -> None:
        """Start the current request, if it has waited for the client to read."""
        current = self.current
        if current is not None and not current.launched:
            current.launched = True
            self.tasks.start(current)

    def last(self) -> bool:
        """Tell whether no request waits behind `current`."""
        return self.pipeline is None and not self.reader.unread

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def refuse(self, error: ClientError) -> None:
        """Answer a request that cannot be served, after those before it, and read no other."""
        if self.link.stage is not SERVING:
            return
        self.reader.stop()
        broken, self.receiving = self.receiving, None
        if broken is not None and broken is self.current:
            if broken.state is DONE:
                self.link.linger()
                return
            if broken.state not in (START, HEADED):
                self.broken(broken)
                return
            broken.disconnect()
            self.current = None
        if self.pipeline is None:
            self.pipeline = Pipeline(self.link, self.reader, self._read_on)
        self.pipeline.refuse(error, broken)
        if self.current is None:
            self._next()

    def broken(self, exchange: Exchange) -> None:
        """See `Carrier`."""
        self.tasks.record(exchange)
        exchange.disconnect()
        self.current = None
        if is_close_delimited(exchange):
            self.link.reset()
        else:
            self.link.close()

    def eof_received(self) -> bool:
        """Take the client's half-close. Complete requests are still answered, except over TLS."""
        current = self.current
        if self.link.tls or self.receiving is not None or current is None:
            return False
        self.eof = True
        self._hear_out(current)
        return True

    def _hear_out(self, exchange: Exchange) -> None:
        """Tell the application after HEAR_OUT, if the exchange is not answered by then."""
        self.context.loop.call_later(HEAR_OUT, exchange.half_closed, context=self.context.variables)

    def lost(self) -> None:
        """Tell the application, and let go of the reader, which refers to this handler."""
        current, self.current = self.current, None
        self.receiving = None
        self.pipeline = None
        self.reader.close()
        if current is not None:
            current.disconnect()
            if current.state is not DONE and current.launched:
                self.tasks.record(current)

    def expire(self) -> None:
        """Answer 408 to a request that has not come in time; close a connection without a request."""
        awaited = self.link.awaited
        if self.link.gate.reasons - {Pause.TURN}:
            self.link.await_nothing()  # the client is not late: reading was paused
        elif awaited is HEAD or awaited is BODY:
            self.refuse(ClientError(408, f"request {awaited.name.lower()} timed out"))
        else:
            self.link.close()

    @property
    def idle(self) -> bool:
        """Whether no request is under way, also none half received."""
        return self.current is None and not self.reader.in_head and not self.reader.unread

    @property
    def portable(self) -> bool:
        """True: HTTP/1 has no state between requests."""
        return True
