"""A WSGI app (PEP 3333) as an ASGI app, through a2wsgi, with the corners that real apps hit put right.

The object is made where the app is loaded and called in the worker's loop; each request runs in one of
a2wsgi's threads. It must start no thread before the first request, because the zygote forks after loading:
a2wsgi's executor starts its threads when work arrives.
"""

import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from a2wsgi import WSGIMiddleware

from aserver.asgi import Message, Receive, Scope, Send

#: Where a request's exchange lives in the scope, which a2wsgi hands on as environ["asgi.scope"].
_EXCHANGE = "aserver.wsgi_exchange"


class WSGIAdapter:
    """Serves `app` to an ASGI server: http in threads, lifespan answered, websocket refused.

    Differs from plain a2wsgi where that was seen to fail: a client that leaves while the app streams blocked
    the thread for ever; `readline(n)` on an unread body said end of file; a body without Content-Length
    looked empty to Werkzeug; a body cut by the client looked complete; `wsgi.errors` was stdout.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._middleware: Any = WSGIMiddleware(self._call)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection (ASGI 3.0). Raises what the WSGI app raised."""
        if scope["type"] != "http":
            await self._middleware(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        try:
            await self._middleware({**scope, _EXCHANGE: exchange}, exchange.receive, exchange.send)
        except OSError:
            if not exchange.client_gone:
                raise

    def _call(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """The WSGI call, in a thread."""
        exchange: _Exchange = environ["asgi.scope"].pop(_EXCHANGE)
        environ["wsgi.input"] = io.BufferedReader(_RequestBody(environ["wsgi.input"]))
        # The body ends by itself, also when it came chunked (Werkzeug and others look for this key).
        environ["wsgi.input_terminated"] = True
        environ["wsgi.errors"] = sys.stderr
        return exchange.while_client_listens(self._app(environ, start_response))


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

    def while_client_listens(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The app's response until its end or the client's; closes it as PEP 3333 asks."""
        try:
            for chunk in chunks:
                if self.client_gone:
                    return
                yield chunk
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()


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
