"""A `Service`, alone or on a real socket, and a client that speaks in raw bytes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.config import Layer, build
from aserver.protocol.service import Service
from aserver.worker.native_server import NativeServer, poll_of
from tests.harness.waiting import PATIENCE, eventually

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


def _replace(scope: Scope) -> None:
    """As a middleware that believes proxies does; other iterables than ours."""
    scope.update(client=["192.0.2.1", 0], headers=([b"host", b"u"],), method="PATCH", http_version="9")
    scope.update(path="/other", raw_path=b"/other", query_string=b"", request_id=7)


#: What an application may do to its scope, which is its own.
SCOPE_CHANGES: list[Any] = [
    pytest.param(_replace, id="replace"),
    pytest.param(lambda scope: scope.clear(), id="clear"),
    pytest.param(lambda scope: [scope.pop(name) for name in list(scope)], id="pop"),
    pytest.param(lambda scope: scope["headers"].clear(), id="clear the headers"),
    pytest.param(lambda scope: scope["headers"].append((b"x", b"y")), id="append a header"),
]


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), PATIENCE)  # a server that does not read must not stop the test

    async def rest(self) -> bytes:
        """All bytes until the server's FIN."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)

    async def until(self, mark: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(mark), PATIENCE)

    async def exactly(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)

    async def response(self) -> tuple[bytes, bytes]:
        """Head and body of one response with a content-length."""
        head = await self.until(b"\r\n\r\n")
        return head, await self.exactly(int(field(head, b"content-length") or 0))

    def close(self) -> None:
        self.writer.close()


class Serving:
    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.port = port
        self.clients: list[Client] = []

    @property
    def connections(self) -> Any:
        """The service's, with all that tests look at."""
        return self.service.connections

    async def connect(self, limit: int = 1 << 24) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=limit))
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> bytes:
        """Send `data` on a new connection; return everything until the server closes."""
        client = await self.connect()
        await client.send(data)
        return await client.rest()


def service_of(
    app: ASGIApp,
    *,
    access: Any = None,
    lines: Any = None,
    on_limit: Any = None,
    note: Any = None,
    state: Any = None,
    metered: bool = False,
    **settings: Any,
) -> Service:
    """What serves an application in the running loop, with these settings and else the defaults."""
    config = build([Layer("test", {"target": "x:y", **settings})]).config
    state = {} if state is None else state
    loop = asyncio.get_running_loop()
    overdue = getattr(app, "overdue", None)  # a WSGI application's
    more = {
        "access": access,
        "lines": lines,
        "on_limit": on_limit,
        "note": note,
        "overdue": overdue,
        "metered": metered,
    }
    return Service(app, config, loop=loop, state=state, **more)


@asynccontextmanager
async def serving(app: ASGIApp, *, h2c: bool = False, **values: Any) -> AsyncIterator[Serving]:
    """`service_of(app, **values)` on a free port, as a worker has it; whatever is under way is ended afterwards."""
    service = service_of(app, **values)
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    factory = service.protocol_factory(h2c=h2c)
    poll = poll_of(loop)
    server: Any
    if poll is None:
        server = await loop.create_server(factory, sock=listener)
    else:
        server = NativeServer(poll, listener, 100, factory, _fail)
        await server.start_serving()
    context = Serving(service, port)
    try:
        yield context
    finally:
        for client in context.clients:
            client.close()
        service.abort()
        server.close()
        service.cancel("the test is over")
        await eventually(lambda: not service.active and not service.connections)
        if poll is not None:
            poll.close()


def _fail(error: OSError) -> None:
    raise error


def field(head: bytes, name: bytes) -> bytes | None:
    """The value of a field in a response head, None without it; the test fails if it is there twice."""
    values = [
        line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")[1:] if line.lower().startswith(name + b":")
    ]
    assert len(values) <= 1, f"{name!r} twice in {head!r}"
    return values[0] if values else None


def status(response: bytes) -> int:
    assert response.startswith(b"HTTP/1.1 "), response[:100]
    return int(response[9:12])


def body_of(response: bytes) -> bytes:
    return response.split(b"\r\n\r\n", 1)[1]


async def read_all(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def answer(send: Send, body: bytes = b"", status: int = 200, headers: Any = ()) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body)), *headers]}
    )
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with method, raw path and body."""
    body = await read_all(receive)
    await answer(send, scope["method"].encode() + b" " + scope["raw_path"] + b" " + body)


def echo_after(event: asyncio.Event) -> ASGIApp:
    """`echo`, once `event` is set."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await event.wait()
        await echo(scope, receive, send)

    return app
