"""A WSGI application as an ASGI application: the loop has the clients, threads run the application.

Runs in a worker's loop (or the embedding program's). A small body is received before a thread is taken, so that a
client which sends slowly keeps no thread waiting. It must never hold more of a body in memory than BODY_KEPT.
"""

import asyncio
import contextlib
import io
import logging
from collections.abc import Callable, Coroutine
from typing import IO, Any, cast

from aserver import __version__
from aserver.asgi import Message, Receive, Scope, Send
from aserver.config import Config
from aserver.wsgi.call import Call, Notice
from aserver.wsgi.environ import make_environ
from aserver.wsgi.streams import ErrorStream, FileWrapper, InputStream
from aserver.wsgi.threads import Threads

log = logging.getLogger("aserver.error")

#: Bytes of a body that are waited for before a thread is taken. A longer body is read by the thread or, if its length
#: is not known, goes to a temporary file.
BODY_KEPT = 65536

#: Seconds that threads get at the end to close the responses of clients that have gone.
UNWIND = 1.0
_POLL = 0.02


class WSGIApplication:
    """Serves `app` to an ASGI server: requests in `threads` threads, lifespan answered, WebSockets refused."""

    def __init__(self, app: Callable[..., Any], config: Config) -> None:
        self._app = app
        self._most = config.backpressure
        self._number = config.threads
        self._threads: Threads | None = None
        self._calls: dict[int, Call] = {}  # under way, by the identity of their scopes
        self._overdue: set[Call] = set()
        self._full = False  # `backpressure` was reached, and the log has said so
        self._common = {
            "wsgi.version": (1, 0),
            "wsgi.multithread": config.threads > 1,
            "wsgi.multiprocess": config.workers != 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
            "SERVER_SOFTWARE": f"aserver/{__version__}",
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve an ASGI connection. An exception of the application passes through."""
        kind: str = scope["type"]
        return self._serve(scope, receive, send) if kind == "http" else _serve_other(kind, receive, send)

    # ── requests ─────────────────────────────────────────────────────────────────────────────

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        threads = self._threads
        if threads is None:
            threads = self._threads = Threads(self._number, asyncio.get_running_loop())
        # Calls may still be at work although their clients have gone.
        if len(self._calls) >= self._most or len(threads.calls) >= self._most:
            await self._refuse(send)
            return
        if 2 * len(threads.calls) < self._most:
            self._full = False
        environ = make_environ(scope, self._common)
        environ["wsgi.errors"] = ErrorStream(scope.get("request_id"))
        call = Call(self._app, scope, threads.loop, threads.post)
        self._calls[id(scope)] = call
        try:
            if "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ or scope["http_version"] == "2":
                body = await _take_body(call, environ, receive)
            else:  # HTTP/1 says in the head whether there is a body
                body = io.BytesIO()
            if body is not None:
                environ["wsgi.input"] = body
                call.prepare(environ, body)
                threads.start(call)
                await _carry(call, receive, send)
        finally:
            call.leave()
            del self._calls[id(scope)]

    async def _refuse(self, send: Send) -> None:
        """Answer 503 with Retry-After; the log has a single line until half of the requests have ended."""
        if not self._full:
            self._full = True
            text = "%d WSGI requests are under way, as many as may be (backpressure): others get 503 until some end"
            log.warning(text, self._most)
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b"Service Unavailable\n"})

    # ── requests that take too long, and the end ─────────────────────────────────────────────

    def overdue(self, scope: Scope) -> str:
        """Hear that a request is given up; return where its thread stands. The thread cannot be ended."""
        call, threads = self._calls.get(id(scope)), self._threads
        stack = call.stack() if call is not None else None
        if call is None or threads is None or stack is None:
            return f"it waits for one of the {self._number} threads"
        threads.lend(call)
        self._overdue.add(call)
        return stack

    @property
    def stuck(self) -> int:
        """The number of threads that have not come back from a request that was given up."""
        if self._overdue and self._threads is not None:
            self._overdue &= self._threads.calls
        return len(self._overdue)

    async def close(self) -> None:
        """End the threads; those that are about to close a response have UNWIND seconds for it."""
        threads = self._threads
        if threads is None:
            return
        for _ in range(round(UNWIND / _POLL)):
            if len(threads.calls) <= self.stuck:
                break
            await asyncio.sleep(_POLL)
        threads.close()


async def _serve_other(kind: str, receive: Receive, send: Send) -> None:
    """Answer a lifespan; refuse a WebSocket."""
    if kind == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
    else:
        await send({"type": "websocket.close"})


async def _carry(call: Call, receive: Receive, send: Send) -> None:
    """Send the application's answer, and hand on the body where it reads, until its thread has done with it."""
    inbox = call.inbox
    while True:
        while not inbox:
            call.waiter = call.loop.create_future()
            await call.waiter
        posted = inbox.popleft()
        if posted is Notice.OVER:
            break
        if call.held_since is None and not call.over:
            call.held_since = call.loop.time()
        if posted is Notice.BODY:
            message = await receive()
            if message["type"] == "http.disconnect":
                call.leave()
            else:
                call.give(message.get("body", b""), more=message.get("more_body", False))
        elif not call.gone and not isinstance(posted, Notice):
            try:
                await send(posted)
            except OSError:  # the client has gone (the ASGI specification, since 2.4)
                call.leave()
            call.sent(len(posted.get("body", b"")))
    error, call.error = call.error, None
    # An error of the application after the client has gone is most likely its reading of the body.
    if error is not None and not (call.gone and isinstance(error, OSError)):
        try:
            raise error
        finally:
            del error  # no cycle through the traceback


async def _take_body(call: Call, environ: dict[str, Any], receive: Receive) -> IO[bytes] | None:
    """Return the body as `wsgi.input`; None if the client has left.

    A body without a length is received first and gets a length, as waitress does it: Django and bottle do not read a
    body that has none.
    """
    sized = "HTTP_TRANSFER_ENCODING" not in environ and "CONTENT_LENGTH" in environ
    if sized and "HTTP_EXPECT" in environ:  # the client waits until the application asks
        return _to_come(call, b"")
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    piece = message.get("body", b"")
    if not message.get("more_body", False):
        if not sized and (piece or "HTTP_TRANSFER_ENCODING" in environ):
            _set_length(environ, len(piece))
        return io.BytesIO(piece)
    if sized and int(environ["CONTENT_LENGTH"]) > BODY_KEPT:
        return _to_come(call, piece)
    file = await _receive_all(call, message, receive)
    if file is not None and not sized:
        _set_length(environ, file.tell())
    if file is not None:
        file.seek(0)
    return file


async def _receive_all(call: Call, message: Message, receive: Receive) -> IO[bytes] | None:
    """Return a file with the whole body, of which `message` is the first piece; None if the client leaves."""
    import tempfile  # noqa: PLC0415 - rarely needed, and a start waits for each import

    with contextlib.ExitStack() as stack:
        file = cast("IO[bytes]", stack.enter_context(tempfile.SpooledTemporaryFile(max_size=BODY_KEPT)))
        while message["type"] != "http.disconnect":
            if file.tell() <= BODY_KEPT:
                file.write(message.get("body", b""))
            else:  # on a disk, which may be slow
                await call.loop.run_in_executor(None, file.write, message.get("body", b""))
            if not message.get("more_body", False):
                stack.pop_all()  # the call closes it
                return file
            message = await receive()
    return None


def _to_come(call: Call, piece: bytes) -> IO[bytes]:
    return cast("IO[bytes]", io.BufferedReader(InputStream(piece, call.read), BODY_KEPT))


def _set_length(environ: dict[str, Any], length: int) -> None:
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["CONTENT_LENGTH"] = str(length)
