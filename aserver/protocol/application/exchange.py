"""A request and its response, as the application sees them: scope, `receive()` and `send()`.

Runs in the worker's loop. `Response` has the legal order of messages, the carrier makes the bytes. This module waits,
tells of disconnects, and answers for an application that fails. It must never let half a response look complete.
"""

import asyncio
import logging
from typing import Protocol

from aserver.asgi import Message, Scope
from aserver.errors import ApplicationError
from aserver.protocol.application.body import HIGH_WATER, RequestBody, Source
from aserver.protocol.application.files import open_regular
from aserver.protocol.application.parting import QUIET, Parting, is_disconnect
from aserver.protocol.application.request_ids import with_id
from aserver.protocol.application.tasks import Tasks, report
from aserver.protocol.context import Context
from aserver.protocol.semantics.response import BODY, DONE, HEADED, START, TRAILERS, Response
from aserver.protocol.semantics.response_head import Heads, Pairs
from aserver.protocol.transport.connection import Connection


class Carrier(Source, Protocol):
    """The connection or stream of an exchange: all that differs between the versions of HTTP.

    It turns responses into bytes. When `exchange.state` is DONE, it goes on to the next request by itself.
    """

    context: Context
    tasks: Tasks

    @property
    def eof(self) -> bool:
        """Whether the client has shut down its sending side; it may still read."""

    @property
    def open(self) -> bool:
        """Whether responses can be sent."""

    @property
    def write_paused(self) -> bool:
        """Whether `send()` is to wait (`until_writable`), because the client reads too slowly."""

    @property
    def plain(self) -> Connection | None:
        """The connection, if it carries this response alone and without TLS: sendfile(2) may be used. Else None."""

    def send_interim(self, status: int, fields: Pairs) -> None:
        """Send an interim response, such as 100."""

    def send_head(self, exchange: "Exchange", body: bytes) -> None:
        """Send the head, and the first piece of the body; it is the last piece if the exchange is DONE."""

    def send_data(self, exchange: "Exchange", body: bytes) -> None:
        """Send the next piece of the body; it is the last if the exchange is DONE."""

    def send_trailers(self, exchange: "Exchange", fields: Pairs) -> None:
        """Send the trailers, which complete the response."""

    def broken(self, exchange: "Exchange") -> None:
        """End the connection or stream in a way that shows the client that its response is not complete."""

    async def until_writable(self) -> None:
        """Wait while `write_paused`, or until the client is gone."""

    def await_body(self) -> None:
        """Give the client `body_timeout` for the next piece of the request's body."""


class Exchange(Response):
    """A request and its response. After its end it is an `AccessRecord`."""

    __slots__ = (
        "_read",
        "client",
        "complete",
        "connection",
        "duration",
        "gone",
        "headers",
        "launched",
        "method",
        "parting",
        "request_body",
        "request_id",
        "scope",
        "started",
        "target",
        "task",
        "version",
        "waiters",
    )

    #: Set when the response is complete, and only if the access log shows it.
    duration: float

    def __init__(  # noqa: PLR0917 - see Response
        self,
        connection: Carrier,
        heads: Heads,
        scope: Scope,
        target: bytes,
        method: str,
        version: str,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,  # noqa: FBT001
    ) -> None:
        # The first lines repeat `Response.__init__`: to call it would be 1 % of a short request.
        self.heads = heads
        self.head = None
        self._trailers = None
        self.modern = version != "1.0"
        self.head_only = method == "HEAD"
        self.keep_alive = keep_alive
        self.state = START
        self.sent = self.status = 0
        self.trailers_allowed = False
        self.connection = connection
        self.scope = scope
        # Kept for the logs, because the application may change or empty its scope:
        self.target = target
        self.method = method
        self.version = version
        self.headers = headers  # not the scope's list
        self.client: tuple[str, int] | None = scope["client"]  # `begin` sets what a trusted proxy names
        self.started = connection.context.now
        self.launched = False  # the application is to run; `task` may be made a turn of the loop later
        self.task: asyncio.Task[None] | None = None
        self.gone = False  # the client is gone for certain
        self.parting: Parting | None = None  # made when the client is gone, or has closed its sending side
        self.complete = False  # the whole request was received
        self.request_body: RequestBody | None = None  # None without a body
        self._read = False  # `receive()` has returned the end of the body
        self.waiters: list[asyncio.Future[None]] | None = None  # of `receive()`
        self.request_id: str | None = None
        ids = connection.tasks.ids
        if ids is not None:
            forwarding = connection.context.forwarding
            trusted = forwarding is not None and forwarding.trusts(self.client)
            self.request_id = scope["request_id"] = ids.choose(headers, trusted=trusted)

    # ── the application's task ───────────────────────────────────────────────────────────────

    def cancel(self, reason: str) -> None:
        """Cancel the application. `failed` then answers 503 if nothing was sent yet."""
        if self.task is not None:
            self.task.cancel(reason)

    def returned(self) -> None:
        """Log that the application has returned without completing its response, and answer 500 or break it off."""
        if self.parting is None and self.connection.open:
            fault = "the application returned without completing its response (expected %s); %s"
            report(self, fault, self.state.value, self._consequence())
        self.give_up(500)

    def failed(self, error: BaseException) -> None:
        """Log the exception that the application raised, and answer 500 or break the response off."""
        if isinstance(error, asyncio.CancelledError):
            self.give_up(503)
            return
        if self.parting is None or not (isinstance(error, OSError) or is_disconnect(error)):
            report(self, "the application raised %s; %s", type(error).__name__, self._consequence(), error=error)
        self.give_up(500)

    def progress(self) -> int | None:
        """See `Request`: the bytes of both bodies. None after the answer, and while the client has to send or read."""
        body = self.request_body
        if self.state is DONE or self.connection.write_paused or (self.waiters and not (self.complete or self.gone)):
            return None
        return self.sent if body is None else self.sent + body.received

    def _consequence(self, status: int = 500) -> str:
        if self.state is DONE:
            return "its response was complete"
        if self.gone:
            return "the client had gone"
        return f"answered {status}" if self.state in (START, HEADED) else "the connection was broken off"

    def give_up(self, status: int) -> str:
        """Answer for the application if nothing was sent, else break the response off; return which, for the log."""
        connection, consequence = self.connection, self._consequence(status)
        if self.state is DONE or not connection.open:
            return consequence
        if self.state in (START, HEADED) and not (self.gone or connection.eof):
            if self.parting is not None:  # the stop of the server has ended a stream before its first piece
                status = 503
            self.keep_alive = self.keep_alive and status != 503
            self.refuse(status)
        else:
            connection.broken(self)
        return consequence

    def refuse(self, status: int) -> None:
        """Answer for the application. Call it only if nothing was sent."""
        self.keep_alive = self.keep_alive and self.complete
        self.connection.send_head(self, self.answer(status))

    # ── receive ──────────────────────────────────────────────────────────────────────────────

    async def receive(self) -> Message:
        """ASGI `receive()`."""
        connection = self.connection
        while not (self.gone or self.state is DONE):
            body = self.request_body
            if body is None:
                if not self._read:
                    self._read = True
                    return {"type": "http.request", "body": b"", "more_body": False}
            elif body.size or (self.complete and not self._read):
                self._read = self.complete
                return {"type": "http.request", "body": body.take(connection), "more_body": not self.complete}
            elif not self.complete:
                if body.continue_expected:
                    body.continue_expected = False
                    if self.state in (START, HEADED):
                        connection.send_interim(100, ())
                connection.await_body()
            if self.parting is not None:
                break
            await self._wait()
        if self.parting is not None:
            self.parting.tell()
        return {"type": "http.disconnect"}

    async def _wait(self) -> None:
        waiter = self.connection.context.loop.create_future()
        self.waiters = [*(self.waiters or ()), waiter]
        try:
            await waiter
        finally:
            self.waiters.remove(waiter)

    def body_received(self, data: bytes) -> None:
        """Keep a piece of the body for the application, or drop it after the response."""
        body = self.request_body
        assert body is not None
        body.received += len(data)
        self.connection.context.meter.received += len(data)
        body.continue_expected = False
        if self.state is DONE or self.gone:
            return
        body.add(data, self.connection)
        if self.waiters:
            self.wake()

    @property
    def discardable(self) -> bool:
        """Whether the rest of the request's body is short enough to be read and dropped, which keeps the connection."""
        return self.complete or (self.request_body is not None and self.request_body.missing <= HIGH_WATER)

    def wake(self) -> None:
        """Let each waiting `receive()` look at the state again."""
        for waiter in self.waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # ── the client leaves ────────────────────────────────────────────────────────────────────

    def disconnect(self) -> None:
        """Tell the application that the client has gone."""
        self.gone = True
        self._part()

    def half_closed(self) -> None:
        """Tell the application that the client has closed its sending side, HEAR_OUT ago: most such clients have left.

        An answer of known length is still sent. A stream without a known length is broken off, because it could stay
        silent for ever, and only sending would show whether the client is still there.
        """
        if self.state is DONE or self.gone or not self.connection.open:
            return
        if self.state is BODY and self.open_ended:
            self.connection.broken(self)
        else:
            self._part()

    def end_stream(self) -> None:
        """End a stream because the server stops, as if its client had left. Before its first piece it gets 503."""
        if self.parting is None and self.state is BODY:
            self.connection.broken(self)
        elif self.parting is None:
            self._part()

    def _part(self) -> None:
        """Wake `receive()`, and give an answer that has begun `disconnect_grace` to end."""
        context = self.connection.context
        if self.parting is None:
            self.parting = Parting(begun=self.state in (BODY, TRAILERS))
        self.parting.quiet_until = context.loop.time() + QUIET
        if self.state is not DONE:
            self.connection.tasks.leave_behind(self, context.now)
        self.wake()

    @property
    def begun(self) -> bool:
        """Whether the application has begun to answer."""
        return self.state is not START

    @property
    def answered(self) -> bool:
        """Whether the answer is complete. The application may work on after it without a limit."""
        return self.state is DONE

    @property
    def open_ended(self) -> bool:
        """Whether the answer has begun and its length is not known: it may be an endless stream."""
        return self.state in (HEADED, BODY) and self.length is None

    def abandon(self) -> bool:
        """End an answer whose client left long ago; return whether the application was cancelled.

        An application that was told of it is not cancelled: it may be cleaning up, or run background tasks.
        """
        if not self.gone:
            if self.state is HEADED and not self.connection.eof:  # the stop has ended it, and nothing was sent
                self.refuse(503)
                self.gone = True
            else:
                self.connection.broken(self)
        if self.parting is not None and self.parting.knows:
            return False
        self.cancel("the client has gone")
        return True

    # ── send ─────────────────────────────────────────────────────────────────────────────────

    async def send(self, message: Message) -> None:
        """ASGI `send()`. Raises ApplicationError, and ClientDisconnectedError after the client has left."""
        parting = self.parting
        if parting is not None:
            if self.state is DONE or not parting.is_news_here():
                raise parting.error()
            if self.gone:
                await parting.take(message, self, self.connection.context.loop, receiving=bool(self.waiters))
                return
        kind = message["type"]
        if kind == "http.response.body":
            connection = self.connection
            if self.state is HEADED:
                connection.send_head(self, self.body(message))
            else:
                connection.send_data(self, self.body(message))
            if connection.write_paused:
                await connection.until_writable()
        elif kind == "http.response.start":
            self.start(message if self.request_id is None else with_id(message, self.request_id))
        else:
            await self._send_other(kind, message)

    def body_dropped(self, size: int) -> None:
        """Log it, once for each route and status."""
        if self.connection.tasks.is_first_drop(self.scope, self.status):
            fault = (
                "status %d has no body; the %d bytes that the application gave are dropped, "
                "here and whenever this route does it again"
            )
            report(self, fault, self.status, size, level=logging.WARNING)

    async def _send_other(self, kind: str, message: Message) -> None:
        connection = self.connection
        if kind == "http.response.pathsend":
            await self._send_path(message)
        elif kind == "http.response.trailers":
            fields = self.trailers(message)
            if fields is not None:
                connection.send_trailers(self, fields)
        elif kind == "http.response.early_hint" and self.modern:
            connection.send_interim(103, self.early_hint(message))
        else:
            raise ApplicationError(f"unknown ASGI message {kind!r}; expected {self.state.value}")
        if connection.write_paused:
            await connection.until_writable()

    async def _send_path(self, message: Message) -> None:
        """Send a file (`http.response.pathsend`). The body has the size that the file had when it was opened."""
        connection = self.connection
        if self.state is not HEADED:
            raise self._unexpected(message)
        file = await open_regular(connection.context.loop, message["path"])
        try:
            self.file(message, file.size)
            self.keep_alive = self.keep_alive and self.discardable
            connection.send_head(self, b"")
            while self.sent < file.size and connection.open and not self.silent:
                if (link := connection.plain) is not None and (passed := await file.pass_on(link, self.sent)):
                    self.file_piece(passed)
                    continue
                chunk = await file.read(self.sent)
                if connection.open:
                    self.file_piece(len(chunk))
                    connection.send_data(self, chunk)
                    await connection.until_writable()
        finally:
            file.close()
        if self.parting is not None and self.gone:
            raise self.parting.error()
        self.file_sent()
        connection.send_data(self, b"")
