"""A tunnel that is no connection of HTTP/1: a WebSocket works on it as it is, so a stream of HTTP/2 can carry one.

`Stream` is the tunnel and what its writer writes to; `Answered` notes the answer to the offer as fields, not bytes.
"""

from math import inf
from typing import Any

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.metrics.page import Awaited
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.context import Context
from aserver.protocol.semantics.response import Response
from aserver.protocol.semantics.response_head import Heads, Pairs
from aserver.protocol.transport.connection import Handler
from aserver.protocol.transport.read_gate import ReadGate
from aserver.protocol.transport.writer import Writer
from aserver.protocol.websocket import session
from aserver.protocol.websocket.frames import PONG
from tests.harness.waiting import eventually
from tests.protocol.serving import service_of
from tests.protocol.websocket.peers import BINARY, CLOSE, PING, TEXT, Application, echo, frame, frames_of, listen
from tests.protocol.wiretap import Tap


class Stream(Tap):
    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.writer, self.gate = Writer(self, self.context), ReadGate(self)
        self.deadline, self.awaited, self.open = inf, Awaited.NOTHING, True
        self.end = ""

    def hand_over(self, handler: Handler) -> None:
        self.handler = handler

    async def until_writable(self) -> None: ...

    def close(self) -> None:
        self.open, self.end = False, self.end or "closed"

    finish = linger = close

    def abort(self) -> None:
        self.open, self.end = False, "reset"
        self.handler.cut()


class Answered:
    def __init__(self, heads: Heads) -> None:
        self.heads, self.status = heads, 200
        self.told: list[Any] = []

    def accept(self, fields: Pairs, headers: Pairs) -> None:
        self.told.append(200)

    def send_head(self, response: Response, body: bytes) -> None:
        self.told += [response.status, body]

    def send_data(self, response: Response, body: bytes) -> None:
        self.told.append(body)


def tunnelled(app: ASGIApp, early: bytes = b"", **settings: Any) -> tuple[Stream, Answered]:
    """An application on a stream whose request is complete."""
    service = service_of(app, **settings)
    heads = Heads(service.context.defaults, lambda status, fields, reason: b"")
    stream, answer = Stream(service.context), Answered(heads)
    carrier: Any = service  # has the context and the tasks; an exchange that becomes a WebSocket asks for no more
    headers = [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "scheme": "https", "extensions": {}}
    exchange = Exchange(carrier, heads, scope | {"client": None}, b"/", "GET", "2", headers, keep_alive=True)
    session.take_over(stream, service.tasks, answer, exchange, early)
    return stream, answer


async def test_messages_pings_and_the_close() -> None:
    app = Application(echo)
    stream, answer = tunnelled(app, frame(TEXT, b"early"))
    for data in (frame(BINARY, b"1"), frame(PING, b"2")):
        stream.handler.data_received(data)
    await eventually(lambda: len(frames_of(stream.written)) == 3)
    assert answer.told == [200]
    assert app.scope["scheme"] == "wss"
    assert {(0x80 | TEXT, b"early"), (0x80 | BINARY, b"1"), (0x80 | PONG, b"2")} == set(frames_of(stream.written))
    stream.handler.data_received(frame(CLOSE, b"\x03\xe8"))
    await eventually(lambda: frames_of(stream.written)[-1] == (0x80 | CLOSE, b"\x03\xe8"))
    assert stream.end == "closed"


async def test_an_offer_that_the_application_denies() -> None:
    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    stream, answer = tunnelled(deny)
    await eventually(lambda: stream.end == "closed")
    assert (answer.told, stream.written) == ([401, b"no"], b"")


async def test_a_queue_that_is_full_and_a_client_that_goes() -> None:
    async def wait(app: Application) -> None:
        await app.go_on.wait()
        await listen(app)

    app = Application(wait)
    stream, answer = tunnelled(app, ws_max_queue=2)
    await eventually(lambda: answer.told)
    stream.handler.data_received(frame(TEXT, b"1") * 2)
    assert not stream.reading
    stream.abort()
    stream.handler.lost()
    app.go_on.set()
    await eventually(lambda: app.returned)
    assert app.got[-1] == (1006, "")
