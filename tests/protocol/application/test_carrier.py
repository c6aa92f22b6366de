"""A carrier that is no HTTP/1: the application's half works on it as it is, so another version of HTTP can be added.

`Frames` writes what it is told as tuples, in place of frames. The tables are `response_rows`.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.application.body import RequestBody
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.semantics.response import State
from aserver.protocol.semantics.response_head import Heads
from tests.harness.waiting import eventually
from tests.protocol.response_rows import ILLEGAL, LEGAL
from tests.protocol.serving import service_of

Pairs = Sequence[tuple[bytes, bytes]]


def encode(status: int, fields: Pairs, _reason: bytes = b"") -> bytes:
    """One line for a head, as HPACK would make one block of it."""
    return b"|".join([b":status=%d" % status, *[b"%b=%b" % pair for pair in fields]])


class Frames:
    """A stream of its own for each exchange; its frames are (kind, bytes)."""

    plain = None

    def __init__(self, app: Any, **settings: Any) -> None:
        service = service_of(app, date_header=False, server_header=False, **settings)
        self.context, self.tasks = service.context, service.tasks
        self.heads = Heads(self.context.defaults, encode)
        self.open, self.eof, self.write_paused = True, False, False
        self.frames: list[tuple[str, bytes]] = []
        self.reading: list[str] = []

    def send_interim(self, status: int, fields: Pairs) -> None:
        self.frames.append(("interim", encode(status, fields)))

    def send_head(self, exchange: Exchange, body: bytes) -> None:
        assert exchange.head is not None
        self.frames.append(("head", exchange.head.block))
        self.send_data(exchange, body)

    def send_data(self, exchange: Exchange, body: bytes) -> None:
        self.frames += [("data", body)] * bool(body)
        self._end(exchange)

    def send_trailers(self, exchange: Exchange, fields: Pairs) -> None:
        self.frames += [("trailers", b"|".join(b"%b=%b" % pair for pair in fields))]
        self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        if exchange.state is State.DONE:
            self.frames.append(("end", b""))

    def broken(self, exchange: Exchange) -> None:
        self.frames.append(("reset", b""))
        exchange.disconnect()

    async def until_writable(self) -> None: ...

    def await_body(self) -> None:
        self.reading.append("await")

    def pause_body(self) -> None:
        self.reading.append("pause")

    def resume_body(self) -> None:
        self.reading.append("resume")

    def begin(self, method: str = "GET", body: RequestBody | None = None) -> Exchange:
        """Start the application for a request whose body, if there is one, is still to come."""
        scope: Scope = {"type": "http", "method": method, "path": "/", "headers": [], "client": None}
        exchange = Exchange(self, self.heads, scope, b"/", method, "2", [], keep_alive=True)
        exchange.request_body, exchange.complete, exchange.trailers_allowed = body, body is None, True
        self.tasks.start(exchange)
        return exchange

    async def ended(self) -> list[tuple[str, bytes]]:
        await eventually(lambda: not self.tasks.running)
        return self.frames


def sends(*messages: dict[str, Any]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


@pytest.mark.parametrize(("options", "messages", "_"), LEGAL)
async def test_the_table_of_responses(options: dict[str, Any], messages: list[dict[str, Any]], _: bytes) -> None:
    """Fails where `Exchange` asks for more than `Carrier` has, or makes bytes of HTTP/1 itself."""
    head_only = options.get("head_only", False)
    stream = Frames(sends(*messages))
    stream.begin("HEAD" if head_only else "GET")
    (kind, head), *rest = await stream.ended()
    assert kind == "head"
    status = messages[0]["status"]
    assert head.startswith(b":status=%d" % status)
    assert b"HTTP/" not in head
    body = b"" if head_only or status in (204, 304) else b"".join(bytes(each["body"]) for each in messages[1:])
    assert b"".join(data for kind, data in rest if kind == "data") == body
    assert [kind for kind, _ in rest if kind != "data"] == ["end"]


@pytest.mark.parametrize("messages", ILLEGAL)
async def test_the_table_of_faults(messages: list[dict[str, Any]]) -> None:
    """A fault is answered with 500 while nothing is out, and resets the stream after that."""
    stream = Frames(sends(*messages))
    stream.begin().trailers_allowed = False
    frames = await stream.ended()
    begun = [message for message in messages[:-1] if message["type"] == "http.response.body"]
    if not begun:
        assert frames[0][1].startswith(b":status=500|content-type=text/plain")
        assert frames[-1] == ("end", b"")
    elif begun[-1]["more_body"]:
        assert frames[-1] == ("reset", b"")
    else:
        assert frames[-1] == ("end", b""), "it was complete"


async def test_the_body_hints_trailers_and_a_client_that_leaves() -> None:
    got: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a>"]})
        while (message := await receive())["more_body"]:
            got.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"ab"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
        got.append((await receive())["type"])

    stream = Frames(app)
    exchange = stream.begin("POST", RequestBody(None, continue_expected=True))
    await eventually(lambda: exchange.waiters)
    exchange.body_received(b"x" * 100_000)
    await eventually(lambda: got and exchange.waiters)
    exchange.complete = True
    exchange.wake()
    assert await stream.ended() == [
        ("interim", b":status=103|link=</a>"),
        ("interim", b":status=100"),
        ("head", b":status=200"),
        ("data", b"ab"),
        ("trailers", b"x-sum=1"),
        ("end", b""),
    ]
    assert stream.reading == ["await", "pause", "resume", "await"]
    assert got == [b"x" * 100_000, "http.disconnect"]


async def test_a_client_that_leaves() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        while True:
            await send({"type": "http.response.body", "body": b"b", "more_body": True})
            await asyncio.sleep(0)

    stream = Frames(app)
    exchange = stream.begin()
    await eventually(lambda: len(stream.frames) > 3)
    exchange.disconnect()
    assert ("end", b"") not in await stream.ended()
