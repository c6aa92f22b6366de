"""`aserver.testing`: a real server in the tests' process, with real clients, and nothing of it left afterwards."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

import aserver
from aserver import unix
from aserver.asgi import Receive, Scope, Send
from aserver.testing import live_server
from aserver.testing.plugin import StartLive
from tests.harness import PATIENCE
from tests.harness.certificates import Authority


class App:
    """Echoes a WebSocket's messages, streams without end at /stream, and tells its lifespan."""

    def __init__(self) -> None:
        self.life: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                self.life.append((await receive())["type"])
                await send({"type": f"lifespan.{step}.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            message = await receive()
            await send({"type": "websocket.send", "text": message["text"]})
            await receive()
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["scheme"].encode(), "more_body": True})
            while scope["path"] == "/stream":
                await asyncio.sleep(PATIENCE)
            await send({"type": "http.response.body"})


def mine() -> set[str]:
    """What a server could leave behind: threads and descriptors. Those of an earlier test may go meanwhile."""
    return {*map(str, unix.open_fds()), *(thread.name for thread in threading.enumerate())}


def test_http_websocket_and_lifespan_and_nothing_left() -> None:
    """A client's open connection and open stream hold up nothing. Fails with the timeouts of production (_DEFAULTS)."""
    with live_server(App()):
        pass  # modules that stay, and what they have opened
    app, before = App(), mine()
    with httpx.Client(timeout=PATIENCE) as client, live_server(app, stream_grace=0, graceful_timeout=PATIENCE) as url:
        assert app.life == ["lifespan.startup"]
        assert client.get(f"{url}/").text == "http"
        with connect(f"{url.ws}/", close_timeout=PATIENCE) as ws:
            ws.send("hello")
            assert ws.recv(PATIENCE) == "hello"
        stream = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=PATIENCE)
        stream.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while b"http" not in stream.recv(1000).lower().rpartition(b"\r\n\r\n")[2]:
            pass
    assert app.life == ["lifespan.startup", "lifespan.shutdown"]
    with contextlib.suppress(OSError):
        while stream.recv(1000):
            pass
    stream.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/")
    assert mine() <= before


def test_tls(tmp_path: Path, aserver_live: StartLive) -> None:
    """By a certificate for localhost, with HTTP and WebSocket. Fails with an address in the URL."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    url = aserver_live(App(), certfile=str(certificate), keyfile=str(key))
    trust = authority.client()
    assert httpx.get(f"{url}/", verify=trust).text == "https"
    with connect(f"{url.ws}/", ssl=trust) as ws:
        ws.send("hello")
        assert ws.recv(PATIENCE) == "hello"


async def test_in_an_async_test_with_several_servers(aserver_live: StartLive) -> None:
    """The server has a loop of its own, so a test's loop may wait for it. Settings of the environment are not read."""
    one, other = aserver_live(App()), aserver_live(App(), bind="[::1]:0", root_path="/other")
    async with httpx.AsyncClient() as client:
        assert [(await client.get(f"{url}/other/")).text for url in (one, other)] == ["http", "http"]
    assert "[::1]" in other


def test_wsgi(aserver_live: StartLive) -> None:
    def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [("content-length", "2")])
        return [environ["PATH_INFO"].encode()]

    assert httpx.get(f"{aserver_live(wsgi)}/a").text == "/a"


def test_what_cannot_be_served_is_raised_in_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what it is, with no thread left. Fails with a server that is started and not waited for."""
    monkeypatch.setenv("ASERVER_WORKERS", "many")  # is not read
    before = mine()

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the database is away"})

    with pytest.raises(aserver.BootError, match="the database is away"), live_server(fails):
        pass
    with pytest.raises(aserver.ConfigError, match="one worker"), live_server(App(), workers=2):
        pass
    with pytest.raises(aserver.AppLoadError, match="takes no arguments"), live_server(lambda: None):
        pass
    assert mine() <= before
