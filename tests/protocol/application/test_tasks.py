"""What is done for every application's task, of HTTP and of WebSockets alike: noted, limited, logged."""

import logging
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from tests.harness.waiting import eventually
from tests.protocol.serving import LAST_GET, Client, Serving, answer, serving, status
from tests.protocol.websocket.peers import request as websocket_request

REQUESTS = {"http": LAST_GET, "websocket": websocket_request()}
TARGETS = {"http": b"/", "websocket": b"/ws?q=1"}
KINDS = pytest.mark.parametrize("kind", REQUESTS)


async def _ask(server: Serving, kind: str) -> tuple[Client, int]:
    client = await server.connect()
    await client.send(REQUESTS[kind])
    return client, status(await client.until(b"\r\n\r\n"))


async def _accept(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request; accept a WebSocket and wait for its end."""
    if scope["type"] == "http":
        await answer(send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


@KINDS
async def test_the_request_begun_last_is_noted(kind: str) -> None:
    """A loop that stands still is blamed on it. Fails where only HTTP calls `note`: the WebSocket has another's."""
    noted: list[bytes] = []
    async with serving(_accept, note=noted.append) as server:
        await _ask(server, "http")
        await _ask(server, kind)
    assert noted == [TARGETS["http"], TARGETS[kind]]


@KINDS
@pytest.mark.parametrize("fault", ["raises", "returns"])
async def test_the_error_log_has_the_request_id(kind: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Fails without `extra` for the records of a WebSocket's application."""
    ids: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        ids.append(scope["request_id"])
        if fault == "raises":
            raise RuntimeError("no")

    with caplog.at_level(logging.ERROR):
        async with serving(app, access_log_format="json") as server:
            assert (await _ask(server, kind))[1] == 500
    assert [getattr(record, "request_id", None) for record in caplog.records] == ids
    assert len(ids) == 1


@KINDS
@pytest.mark.parametrize("fault", ["raises", "returns"])
async def test_an_emptied_scope_costs_neither_the_answer_nor_the_record(
    kind: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails with `scope["path"]` where the fault is logged: the KeyError ends the task, and nobody answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        scope.clear()
        if fault == "raises":
            raise RuntimeError("no")

    with caplog.at_level(logging.ERROR):
        async with serving(app) as server:
            assert (await _ask(server, kind))[1] == 500
    (record,) = caplog.records
    assert "the application" in record.getMessage()


@KINDS
async def test_the_limit_counts_both_kinds(kind: str) -> None:
    """503 above `limit_concurrency`, and `on_limit` is called. Fails where one kind does not ask."""
    over: list[Any] = []
    async with serving(_accept, limit_concurrency=1, on_limit=lambda: over.append(kind)) as server:
        assert (await _ask(server, "websocket"))[1] == 101
        assert (await _ask(server, kind))[1] == 503
        assert over == [kind]
        server.service.cancel("the test wants it")
        await eventually(lambda: not server.service.active)
        assert (await _ask(server, kind))[1] == (200 if kind == "http" else 101)
