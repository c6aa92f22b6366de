"""The path of `health_check`, around an application."""

import asyncio
import socket
from typing import Any

import anyio
import httpx
import pytest

from aserver.config import Layer, build
from aserver.worker.acceptor import Endpoint
from aserver.worker.health import with_health_check
from aserver.worker.server import Server
from tests.harness import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


class Application:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


async def test_only_that_path_is_answered_for_the_application() -> None:
    """Whatever the method. Fails with a prefix compared, with `root_path` left on, or with POST let through."""
    application, answer = Application(), [True, "2 of 2 workers serve"]
    app = with_health_check(application, "/healthz", lambda: (bool(answer[0]), str(answer[1])))
    transport = httpx.ASGITransport(app, root_path="/api")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        found = await client.get("/api/healthz?x=1")
        assert (found.status_code, found.text) == (200, "ok: 2 of 2 workers serve\n")
        answer[:] = [False, "the server stops"]
        found = await client.get("/api/healthz")
        assert (found.status_code, found.text) == (503, "unavailable: the server stops\n")
        assert found.headers["cache-control"] == "no-store"
        assert (await client.post("/api/healthz")).status_code == 405
        assert not application.asked
        for path in ("/api/healthz/", "/api/healthzz", "/api/"):
            assert (await client.get(path)).status_code == 204
    assert application.asked == ["/api/healthz/", "/api/healthzz", "/api/"]


async def test_a_server_of_one_worker_answers_for_itself() -> None:
    """`serve(app)` has no master. Fails with None asked, and with HEAD answered with a body."""
    application = Application()
    config = build([Layer("argument", {"health_check": "/healthz", "lifespan": "off"})]).config
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(application, config, [Endpoint(listener, "http")], release=lambda: None)
        ready = asyncio.Event()
        serving = asyncio.create_task(server.run(ready.set))
        await ready.wait()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        with anyio.fail_after(PATIENCE):
            writer.write(b"HEAD /healthz HTTP/1.1\r\nHost: t\r\n\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
            assert b" 200 OK\r\n" in await reader.readuntil(b"\r\n\r\n")
            assert b" 200 OK\r\n" in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readline() == b"ok: the worker serves\n"
        writer.close()
        server.drain(final=True, graceful=PATIENCE)
        await serving
    assert not application.asked
