"""A WSGI app (PEP 3333) as an ASGI app, through a2wsgi, with its faults mended that real apps meet.

The object is made where the app is loaded, and called in the worker's loop; each request runs in a thread of a2wsgi. It
must start no thread before the first request, because the zygote forks after loading. a2wsgi's executor starts its
threads when work arrives.
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

#: The key of a request's exchange in the scope, which a2wsgi hands on as environ["asgi.scope"].
_EXCHANGE = "aserver.wsgi_exchange"

#: Bytes of a chunked body that are kept in memory; a longer one goes to a temporary file.
_SPOOL = 1 << 20


class WSGIAdapter:
    """Serves `app` to an ASGI server: http in threads, lifespan answered, websocket refused.

    Faults of a2wsgi that it mends: a client that left while the app streamed blocked the thread for ever; `readline(n)`
    on an unread body returned the end of the file; a chunked body looked empty to Django and Flask, and bottle answered
    400; a body cut by the client looked complete; `wsgi.errors` was stdout; SCRIPT_NAME in the environment of the
    process was taken for each request's, and beat `root_path`.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._middleware: Any = WSGIMiddleware(self._call)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an ASGI connection (ASGI 3.0). An exception of the WSGI app passes through."""
        if scope["type"] != "http":
            await self._middleware(scope, receive, send)
            if scope["type"] == "lifespan":  # over, as all requests are: an embedding program keeps no thread
                self._middleware.executor.shutdown(wait=False)
            return
        exchange = _Exchange(receive, send)
        try:
            # `X_Real_IP` and `X-Real-IP` are the same name in environ: a client could forge a proxy's header.
            headers = [pair for pair in scope["headers"] if b"_" not in pair[0]]
            scope = {**scope, "headers": headers, _EXCHANGE: exchange}
            await self._middleware(scope, exchange.receive, exchange.send)
        except OSError:
            if not exchange.client_gone:
                raise

    def _call(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """Make the WSGI call, in a thread: yield the app's response until its end, or until the client leaves.

        The response is closed then, as PEP 3333 asks.
        """
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
    """A request's ASGI messages; `client_gone` once one of them shows that the client has left."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.client_gone = False
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """The next piece of the body. Raises ConnectionResetError if the client left in the middle of it."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.client_gone = True
            raise ConnectionResetError("the client disconnected before the request body was complete")
        return message

    async def send(self, message: Message) -> None:
        """Send `message`, or drop it after the client has left: a2wsgi's thread waits for ever if this raises."""
        if self.client_gone:
            return
        try:
            await self._send(message)
        except OSError:  # the ASGI specification, since 2.4: send() after a disconnect
            self.client_gone = True


def _give_length(environ: dict[str, Any]) -> IO[bytes]:
    """Read the whole of a chunked body and set its length, as waitress does: WSGI cannot end a body otherwise.

    Returns the file with the body. Close it after the request.
    """
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(environ["wsgi.input"], spool)
    environ["CONTENT_LENGTH"] = str(spool.tell())
    del environ["HTTP_TRANSFER_ENCODING"]
    spool.seek(0)
    environ["wsgi.input"] = spool
    return spool


class _RequestBody(io.RawIOBase):
    """a2wsgi's body, to be read through io.BufferedReader, whose read, readline, readlines and iteration are right."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        piece: bytes = self._body.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
