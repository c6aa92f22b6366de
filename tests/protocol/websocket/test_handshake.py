"""The opening handshake of a WebSocket, on a real socket."""

import pytest

from aserver.asgi import Receive, Scope, Send
from tests.protocol.serving import field, serving, status
from tests.protocol.websocket.peers import (
    KEY,
    Application,
    listen,
    request,
)

# ── handshake ────────────────────────────────────────────────────────────────────────────────


async def test_handshake_of_the_rfc() -> None:
    async with serving(Application(listen)) as server:
        client = await server.connect()
        await client.send(request())
        answer = await client.until(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert field(answer, b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
    assert field(answer, b"upgrade") == b"websocket"
    assert field(answer, b"connection") == b"Upgrade"
    assert field(answer, b"date")
    assert field(answer, b"sec-websocket-protocol") is None
    assert field(answer, b"sec-websocket-extensions") is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(request(version=b""), 426, id="no version"),
        pytest.param(request(version=b"Sec-WebSocket-Version: 8"), 426, id="old version"),
        pytest.param(request(b"Sec-WebSocket-Version: 8"), 426, id="two versions"),
        pytest.param(request(key=b""), 400, id="no key"),
        pytest.param(request(KEY), 400, id="two keys"),
        pytest.param(request(key=b"Sec-WebSocket-Key: c2hvcnQ="), 400, id="short key"),
        pytest.param(request(key=b"Sec-WebSocket-Key: ????"), 400, id="key that is not base64"),
        pytest.param(request(b"Sec-WebSocket-Protocol: a b"), 400, id="subprotocol that is no token"),
    ],
)
async def test_bad_handshakes(data: bytes, expected: int) -> None:
    app = Application(listen)
    records: list[tuple[str, int]] = []
    async with serving(app, access=lambda record: records.append((record.method, record.status))) as server:
        answer = await server.ask(data)
    assert status(answer) == expected
    assert field(answer, b"connection") == b"close"
    assert field(answer, b"sec-websocket-version") == (b"13" if expected == 426 else None)
    assert field(answer, b"upgrade") == (b"websocket" if expected == 426 else None)
    assert not app.scope
    assert records == [("GET", expected)]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request(b"Content-Length: 0", start=b"POST / HTTP/1.1"), id="not GET"),
        pytest.param(request(start=b"GET / HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(request().replace(b"WebSocket\r\n", b"h2c\r\n"), id="another protocol"),
        pytest.param(request().replace(b", Upgrade", b""), id="no upgrade in Connection"),
    ],
)
async def test_offers_that_are_no_handshake_are_plain_http(data: bytes) -> None:
    kinds: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kinds.append(scope["type"])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with serving(app) as server:
        client = await server.connect()
        await client.send(data)
        assert status(await client.until(b"\r\n\r\n")) == 204
    assert kinds == ["http"]
