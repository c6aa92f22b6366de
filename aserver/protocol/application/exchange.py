"""A request and its response, as the application sees them: scope, `receive()` and `send()`.

Runs in the worker's loop. The legal order of messages is `Response`'s, the bytes are the carrier's; this adds waiting,
disconnects, the body's flow control and the application's failures. It must never let a half response look
complete.
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
    """The connection of an exchange, or its stream: all that differs between the versions of HTTP.

    It makes the bytes, and goes on by itself once `exchange.state` is DONE.
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
        """Whether the client reads less fast than the application writes."""

    @property
    def plain(self) -> Connection | None:
        """The connection, if it carries this response and nothing else, in the clear; a file can be sent beside it."""

    def send_interim(self, status: int, fields: Pairs) -> None:
        """Send an interim response, such as 100."""

    def send_head(self, exchange: "Exchange", body: bytes) -> None:
        """Send the head with the first piece of the body, or all of it if the response is complete."""

    def send_data(self, exchange: "Exchange", body: bytes) -> None:
        """Send the next piece of the body, the last if the response is complete."""

    def send_trailers(self, exchange: "Exchange", fields: Pairs) -> None:
        """Send the trailers, which complete the response."""

    def broken(self, exchange: "Exchange") -> None:
        """End so that the client sees that this response is not complete."""

    async def until_writable(self) -> None:
        """Wait until the client has read enough, or is gone."""

    def await_body(self) -> None:
        """Give the client its time for the next piece of the request's body."""


class Exchange(Response):
    """A request under way; when it has ended, an `AccessRecord`."""

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

    #: Set when the response is complete, and only if there is an access log that says how long it took.
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
        # Not by `Response.__init__`, whose call would be 1 % of a short request.
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
        # For the logs, because the application may change or empty its scope.
        self.target = target
        self.method = method
        self.version = version
        self.headers = headers  # not the scope's list
        self.client: tuple[str, int] | None = scope["client"]  # or the address that a trusted proxy names
        self.started = connection.context.now
        self.launched = False  # its turn has come; `task` may follow a turn of the loop later
        self.task: asyncio.Task[None] | None = None
        self.gone = False  # nothing that is sent reaches the client any more
        self.parting: Parting | None = None  # made when the client has gone, or has stopped sending and may have
        self.complete = False  # the request's last byte is here
        self.request_body: RequestBody | None = None  # None without a body
        self._read = False  # the application has got the end of the body
        self.waiters: list[asyncio.Future[None]] | None = None
        self.request_id: str | None = None
        ids = connection.tasks.ids
        if ids is not None:
            forwarding = connection.context.forwarding
            trusted = forwarding is not None and forwarding.trusts(self.client)
            self.request_id = scope["request_id"] = ids.choose(headers, trusted=trusted)

    # ── the application's task ───────────────────────────────────────────────────────────────

    def cancel(self, reason: str) -> None:
        """Cancel the application; the client gets 503 if nothing was sent yet."""
        if self.task is not None:
            self.task.cancel(reason)

    def returned(self) -> None:
        """Complain of an application that has returned without completing its response."""
        if self.parting is None and self.connection.open:
            fault = "the application returned without completing its response (expected %s); %s"
            report(self, fault, self.state.value, self._consequence())
        self.give_up(500)

    def failed(self, error: BaseException) -> None:
        """React to an exception of the application."""
        if isinstance(error, asyncio.CancelledError):
            self.give_up(503)
            return
        if self.parting is None or not (isinstance(error, OSError) or is_disconnect(error)):
            report(self, "the application raised %s; %s", type(error).__name__, self._consequence(), error=error)
        self.give_up(500)

    def progress(self) -> int | None:
        """See `Request`: bytes of both bodies; None after the answer, and while the client does not send or read."""
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
        """Answer for the application if nothing was sent, else make sure that the end does not look good."""
        connection, consequence = self.connection, self._consequence(status)
        if self.state is DONE or not connection.open:
            return consequence
        if self.state in (START, HEADED) and not (self.gone or connection.eof):
            if self.parting is not None:  # a stream that was ended by the stop, before its first piece
                status = 503
            self.keep_alive = self.keep_alive and status != 503
            self.refuse(status)
        else:
            connection.broken(self)
        return consequence

    def refuse(self, status: int) -> None:
        """Answer for the application; nothing may have been sent."""
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
        """Whether so little is missing of the request's body that it is worth keeping the connection for it."""
        return self.complete or (self.request_body is not None and self.request_body.missing <= HIGH_WATER)

    def wake(self) -> None:
        """Let every waiting `receive()` look again."""
        for waiter in self.waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # ── a client that leaves ─────────────────────────────────────────────────────────────────

    def disconnect(self) -> None:
        """Tell the application that the client has gone."""
        self.gone = True
        self._part()

    def half_closed(self) -> None:
        """Tell the application that the client has stopped sending some time ago; nearly all have left then.

        An answer of known length is still sent. An endless stream is broken off: nothing else would show whether its
        client is there, as long as nothing is sent.
        """
        if self.state is DONE or self.gone or not self.connection.open:
            return
        if self.state is BODY and self.open_ended:
            self.connection.broken(self)
        else:
            self._part()

    def end_stream(self) -> None:
        """End a stream because the server stops, as if its client had left; before the first piece it gets 503."""
        if self.parting is None and self.state is BODY:
            self.connection.broken(self)
        elif self.parting is None:
            self._part()

    def _part(self) -> None:
        """Wake `receive()`, and see to it that an answer which has begun does not go on for ever."""
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
        """Whether the answer is complete; after it the application may work as long as it likes."""
        return self.state is DONE

    @property
    def open_ended(self) -> bool:
        """Whether the answer has begun and nothing says how long it will be."""
        return self.state in (HEADED, BODY) and self.length is None

    def abandon(self) -> bool:
        """End an answer whose client left long ago; return whether the application had to be cancelled.

        An application that has heard of it may work on: it may have to clean up, or have background tasks.
        """
        if not self.gone:
            if self.state is HEADED and not self.connection.eof:  # ended by the stop, and nothing is out
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
        """ASGI `send()`. Raises ApplicationError, and ClientDisconnectedError (an OSError)."""
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
        """See `Response`. It is said once for a route and process."""
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
        """`http.response.pathsend`: the file's size is the body's, whatever happens to the file meanwhile."""
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
