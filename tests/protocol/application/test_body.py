"""The body of a request that waits for its application."""

import tracemalloc
from collections.abc import Iterator

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.application.body import HIGH_WATER, RequestBody
from aserver.protocol.http2.rates import Patience
from aserver.protocol.http2.sender import Sender
from aserver.protocol.http2.streams import Streams
from tests.protocol.http2.strict import Answer, speaking

PIECES = [b"%02d" % (number % 100) for number in range(30_000)]
MOST = 3 * len(PIECES)  # bytes; apart, they take 28 times as many as are in them


class Source:
    def pause_body(self) -> None: ...
    def resume_body(self) -> None: ...


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_tiny_pieces_take_no_more_memory_than_others() -> None:
    """Fails without SMALL in append_piece."""
    body, source = RequestBody(None, continue_expected=False), Source()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(len(PIECES)):
        body.add(b"%02d" % (number % 100), source)
    assert tracemalloc.get_traced_memory()[0] - before < MOST
    assert body.size < HIGH_WATER
    assert body.take(source) == b"".join(PIECES)


def test_nor_do_those_of_an_answer_whose_client_opens_no_window() -> None:
    """They leave in few frames, too. Fails without append_piece in Sender.data."""
    streams = Streams()
    sender = Sender(streams, Patience(0.0), lambda _: None)
    stream = streams.begin(1, True)
    stream.send_window = 0
    before = tracemalloc.get_traced_memory()[0]
    for number in range(len(PIECES)):
        sender.data(stream, b"%02d" % (number % 100), end=False)
    assert tracemalloc.get_traced_memory()[0] - before < MOST
    stream.send_window = 65_535
    sender.widened(stream)
    sent = sender.take()
    assert len(sent) < 2.1 * len(PIECES)


async def test_nor_those_of_a_websocket_on_a_stream_that_is_not_read() -> None:
    """Fails with the pieces of StreamTunnel as a list."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    async with speaking(app) as (server, client):
        number = client.h2.get_next_available_stream_id()
        headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/")]
        client.h2.send_headers(number, [*headers, (":authority", "t"), ("sec-websocket-version", "13")])
        got = client.answers[number] = Answer()
        await client.until(lambda: got.headers or got.over)
        (connection,) = server.connections
        tunnel = connection.handler.streams.open[number].owner
        tunnel.pause_reading()
        before = tracemalloc.get_traced_memory()[0]
        for each in range(len(PIECES)):
            tunnel.take_body(b"%02d" % (each % 100))
        assert tracemalloc.get_traced_memory()[0] - before < MOST
