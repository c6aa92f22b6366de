"""What was scheduled before a connection's phase changed, and is called after it.

Everything in protocol/ that is called in a later turn of the loop than it was asked for in:

* `Context._start_ready` (and the tasks of 3.11): an application begins;
* `Context.write_gathered`, `Writer._turn_over`: held answers are written;
* `FairQueue._next`: a reader that had to wait goes on (`HttpConnection._take_turn`, `Socket._take_turn`), and
  `HttpConnection._make_room`, when the pipeline has room;
* `Service.cancel`: a request is cancelled;
* `Departure._step`: a WebSocket leaves;
* futures: `receive()`, `until_writable()`, `Draining.wait()`.

Here a client does things of which each leaves some of them behind, and the end comes in each turn after that.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.service import Service
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.serving import service_of
from tests.protocol.wiretap import Tap

GET = b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n"
HANDSHAKE = (
    b"GET /c HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
#: A masked text frame of two bytes, with a mask of zeroes.
FRAME = b"\x81\x82\0\0\0\0hi"

#: What a client sends, one piece for each turn of the loop.
CLIENTS: dict[str, list[bytes]] = {
    "one request": [GET],
    "requests close together": [GET, GET, GET],
    "an answer in pieces": [GET.replace(b"/a", b"/pieces")],
    "a pipeline above its limit": [GET * 40],
    "a head of several turns": [
        GET[:-2] + b"X-Field: " + b"x" * 6000 + b"\r\n" + b"Y: y\r\n" * 40 + b"\r\n" + GET * 300
    ],
    "small chunks": [POST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 6000],
    "half a body": [POST + b"12"],
    "a body in pieces": [POST, b"1", b"2345" + GET],
    "an error behind a request": [GET + b"nonsense\r\n\r\n"],
    "a WebSocket": [HANDSHAKE, FRAME],
    "a WebSocket with much to read": [HANDSHAKE, FRAME * 9000],
}
#: Turns after the last piece in which the end comes.
TURNS = range(7)


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers in one piece or over several turns, whatever becomes of the client."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/a":
        await send({"type": "http.response.body", "body": b"all"})
        return
    for more in (True, True, False):
        await send({"type": "http.response.body", "body": b"piece", "more_body": more})
        await asyncio.sleep(0)


async def _lost(service: Service, tap: "Strict") -> None:
    """The client's reset."""
    tap.closed = True
    tap.get_protocol().connection_lost(ConnectionResetError())


async def _half_closed(service: Service, tap: "Strict") -> None:
    if not tap.get_protocol().eof_received():
        tap.closed = True
        tap.get_protocol().connection_lost(None)


async def _aborted(service: Service, tap: "Strict") -> None:
    service.abort()


async def _drained(service: Service, tap: "Strict") -> None:
    """All that a worker does when it leaves, without time in between."""
    service.drain()
    service.close_idle()
    service.close_websockets(service.context.loop.time())
    service.cancel("the time to drain is over")
    await asyncio.sleep(0)
    service.abort()


async def _expired(service: Service, tap: "Strict") -> None:
    service.sweep(service.context.loop.time() + 10_000)


ENDS: list[Callable[[Service, "Strict"], Any]] = [_lost, _half_closed, _aborted, _drained, _expired]


@pytest.mark.parametrize("end", ENDS, ids=[each.__name__[1:] for each in ENDS])
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_connection_may_end_in_any_turn(client: str, end: Callable[[Service, "Strict"], Any]) -> None:
    """No callback writes to, reads from or fails on a connection that has ended, and no application stays behind.

    Fails without `stopped` in write_held and flush, `stage is not CLOSED` in Socket.resume, `stage is not SERVING` in
    _read_on, with the look for a reader left out of _take_turn, and with requests cancelled at once in Service.cancel.
    """
    loop = asyncio.get_running_loop()
    troubles: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    for turns in TURNS:
        service = service_of(_app)
        tap = Strict().plug(service)
        for piece in CLIENTS[client]:
            if not tap.closed:
                tap.get_protocol().data_received(piece)
            await asyncio.sleep(0)
        await turns_of_the_loop(turns)
        await end(service, tap)
        served = service.requests + service.active
        await turns_of_the_loop(60)
        if not tap.closed:
            assert end in (_half_closed, _expired)
            service.abort()
            await turns_of_the_loop(20)
        if tap.closed:
            tap.get_protocol().connection_lost(None)
        await turns_of_the_loop(20)
        assert not troubles, f"{turns} turns later"
        assert not service.connections
        assert not service.active, f"{turns} turns later an application stays"
        if end is _lost:
            assert service.requests <= served, f"{turns} turns later a request is served to a client that has gone"


class Strict(Tap):
    """A transport that takes offence at what is done to it after its end."""

    def resume_reading(self) -> None:
        assert not self.closed, "it reads again after the end"
        super().resume_reading()
