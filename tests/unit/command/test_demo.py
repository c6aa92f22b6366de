"""The demo app by itself, called as a server calls it; tests/process/test_demo.py has it under the real command."""

import asyncio
from typing import Any

import pytest

from aserver.asgi import Message
from aserver.command import demo


async def ask(path: str, query: bytes = b"", *events: Message, **scope: Any) -> list[Message]:
    """What the app sent."""
    waiting, sent = list(events), []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {
        "type": "http",
        "path": path,
        "query_string": query,
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
    }
    await demo.app(whole | scope, receive, send)
    return sent


@pytest.mark.parametrize("seconds", [b"301", b"-1", b"nan", b"inf", b"x"])
async def test_nobody_is_kept_for_ever(seconds: bytes) -> None:
    start, _ = await ask("/slow", b"seconds=" + seconds)
    assert start["status"] == 400


async def test_a_client_that_leaves_is_no_error() -> None:
    """The route raises, the app does not: a log would be full of them. And half an upload gets no receipt."""
    part = {"type": "http.request", "body": b"part", "more_body": True}
    assert await ask("/upload", b"", part, {"type": "http.disconnect"}) == []


async def test_what_the_page_shows_is_text() -> None:
    _, body = await ask("/", extensions={"<script>": {}})
    assert b"&lt;script&gt;" in body["body"]
    assert b"<script>" not in body["body"]


def test_the_page_names_the_loop_that_runs() -> None:
    _, body = asyncio.run(ask("/state"))
    assert b'"event loop": "asyncio"' in body["body"]
