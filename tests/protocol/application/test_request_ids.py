"""Request ids: whose are believed, where they stand, and that nobody gets one who does not want it."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from tests.protocol.serving import answer, field, serving

GET = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n%s\r\n"


async def ask(*lines: bytes, response: Any = (), **settings: Any) -> tuple[Scope, bytes]:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        scopes.append(scope)
        await answer(send, headers=response)

    async with serving(app, **{"access_log_format": "json", **settings}) as server:
        return scopes, await server.ask(GET % b"".join(line + b"\r\n" for line in lines))  # type: ignore[return-value]


async def id_of(*lines: bytes, **settings: Any) -> str:
    scopes, answered = await ask(*lines, **settings)
    told = field(answered, b"x-request-id")
    assert told is not None
    assert told.decode() == scopes[0]["request_id"]  # type: ignore[index]
    return told.decode()


async def test_ours_are_unique() -> None:
    first, second = await id_of(), await id_of()
    assert first != second
    assert len(first) >= 16


async def test_a_trusted_peers_is_taken() -> None:
    assert await id_of(b"X-Request-Id: 7b1c-42/a:b") == "7b1c-42/a:b"


@pytest.mark.parametrize(
    "lines",
    [
        (b"X-Request-Id: a b",),
        (b"X-Request-Id:",),
        (b"X-Request-Id: a", b"X-Request-Id: b"),
        (b'X-Request-Id: a"b',),
        (b"X-Request-Id: " + b"a" * 129,),
    ],
)
async def test_nonsense_is_not(lines: tuple[bytes, ...]) -> None:
    assert (await id_of(*lines)) not in [line.partition(b": ")[2].decode() for line in lines]


@pytest.mark.parametrize("settings", [{"forwarded_allow_ips": ["10.0.0.1"]}, {"proxy_headers": False}])
async def test_a_strangers_is_not(settings: Any) -> None:
    assert await id_of(b"X-Request-Id: mine", **settings) != "mine"


async def test_the_applications_own_wins() -> None:
    _, answered = await ask(response=[(b"X-Request-Id", b"app")])
    assert field(answered, b"x-request-id") == b"app"


async def test_none_where_the_log_does_not_show_it() -> None:
    scopes, answered = await ask(b"X-Request-Id: a", access_log_format="combined")
    assert field(answered, b"x-request-id") is None
    assert "request_id" not in scopes[0]  # type: ignore[index]


async def test_the_error_log_names_it(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise RuntimeError("no")

    with caplog.at_level(logging.ERROR):
        async with serving(app, access_log_format="%({request_id}e)s") as server:
            await server.ask(GET % b"X-Request-Id: abc\r\n")
    assert [getattr(record, "request_id", None) for record in caplog.records] == ["abc"]


@pytest.mark.parametrize(
    "make",
    [lambda: None, lambda: [[b"x-a", b"1"]], lambda: [iter((b"x-a", b"1"))], {b"x-a": b"1"}.items],
    ids=["none", "list", "iterator", "items"],
)
async def test_headers_beside_an_id_are_any_iterables(make: Callable[[], Any]) -> None:
    """Fails where they are gone through twice, or None is not none."""
    headers = make()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(app, access_log_format="json") as server:
        answered = await server.ask(GET % b"")
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert field(answered, b"x-a") == (None if make() is None else b"1")
    assert field(answered, b"x-request-id") is not None
