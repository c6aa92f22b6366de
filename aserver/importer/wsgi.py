"""A WSGI app (PEP 3333) as an ASGI app, through a2wsgi, with the corners that real apps hit put right.

The object is made where the app is loaded and called in the worker's loop; each request runs in one of
a2wsgi's threads. It must start no thread before the first request, because the zygote forks after loading:
a2wsgi's executor starts its threads when work arrives.
"""

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from a2wsgi import WSGIMiddleware

from aserver.asgi import Message, Receive, Scope, Send

#: Where a request's exchange lives in the scope, which a2wsgi hands on as environ["asgi.scope"].
_EXCHANGE = "aserver.wsgi_exchange"

#: Bytes of a chunked body kept in memory before it goes to a temporary file: a few threads' worth is no burden.
_SPOOL = 1 << 20


class WSGIAdapter:
    """Serves `app` to an ASGI server: http in threads, lifespan answered, websocket refused.

    Differs from plain a2wsgi where that was seen to fail: a client that leaves while the app streams blocked
    the thread for ever; `readline(n)` on an unread body said end of file; a chunked body looked empty to
    Django and Flask, and bottle answered 400; a body cut by the client looked complete; `wsgi.errors` was stdout;
    SCRIPT_NAME in the environment of the process was taken for each request's, and beat `root_path`.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._middleware: Any = WSGIMiddleware(self._call)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection (ASGI 3.0). Raises what the WSGI app raised."""
        if scope["type"] != "http":
            await self._middleware(scope, receive, send)
            if scope["type"] == "lifespan":  # over, and so are the requests: no thread stays in an embedding program
                self._middleware.executor.shutdown(wait=False)
            return
        exchange = _Exchange(receive, send)
        try:
            # `X_Real_IP` and `X-Real-IP` would be one name in environ: a client could forge what a proxy sets.
            headers = [pair for pair in scope["headers"] if b"_" not in pair[0]]
            scope = {**scope, "headers": headers, _EXCHANGE: exchange}
            await self._middleware(scope, exchange.receive, exchange.send)
        except OSError:
            if not exchange.client_gone:
                raise

    def _call(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """The WSGI call, in a thread: the app's response until its end or the client's; closed as PEP 3333 asks."""
        scope: Scope = environ["asgi.scope"]
        exchange: _Exchange = scope.pop(_EXCHANGE)
        # a2wsgi prefers the process's own SCRIPT_NAME, but takes `root_path` off the path: two prefixes, each half.
        environ["SCRIPT_NAME"] = scope.get("root_path", "").encode().decode("latin-1")
        environ["wsgi.input"] = io.BufferedReader(_RequestBody(environ["wsgi.input"]))
        environ["wsgi.errors"] = sys.stderr
        with contextlib.ExitStack() as stack:
            if "HTTP_TRANSFER_ENCODING" in environ:
                stack.enter_context(_give_length(environ))
            chunks = self._app(environ, start_response)
            if hasattr(chunks, "close"):
                stack.callback(chunks.close)
            for chunk in chunks:
                if exchange.client_gone:
                    return
                yield chunk


class _Exchange:
    """One request: knows whether its client has gone."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.client_gone = False
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """The next piece of the body; raises ConnectionResetError where the client left in the middle of it."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.client_gone = True
            raise ConnectionResetError("the client disconnected before the request body was complete")
        return message

    async def send(self, message: Message) -> None:
        """Send, or drop what nobody will read: a2wsgi's thread waits for ever if its sender task dies."""
        if self.client_gone:
            return
        try:
            await self._send(message)
        except OSError:  # the ASGI specification, since 2.4: send() after a disconnect
            self.client_gone = True


def _give_length(environ: dict[str, Any]) -> IO[bytes]:
    """Read a chunked body whole and tell its length, as waitress does: WSGI has no other way to end a body.

    Returns the file that holds it, to be closed after the request.
    """
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(environ["wsgi.input"], spool)
    environ["CONTENT_LENGTH"] = str(spool.tell())
    del environ["HTTP_TRANSFER_ENCODING"]
    spool.seek(0)
    environ["wsgi.input"] = spool
    return spool


class _RequestBody(io.RawIOBase):
    """a2wsgi's body under io.BufferedReader, which has read, readline, readlines and iteration right."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        piece: bytes = self._body.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
