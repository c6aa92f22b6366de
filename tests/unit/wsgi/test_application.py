"""A WSGI application behind ASGI: its response, its body, and clients that leave. PEP 3333 by its own validator."""

from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from aserver.asgi import Message
from aserver.config import Config
from aserver.wsgi.application import WSGIApplication
from tests.unit.wsgi.calling import StartResponse, body_of, call

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_names_with_an_underscore_are_dropped() -> None:
    """In environ they would be the name with a hyphen, which a proxy sets. Fails without the look for `_` in `_key`."""
    seen: dict[str, str] = {}

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        seen.update({key: value for key, value in environ.items() if key.startswith(("HTTP_X", "CONTENT_LENGTH"))})
        start_response("200 OK", [])
        return []

    await call(app, headers=[(b"x-real-ip", b"1.1.1.1"), (b"x_real_ip", b"6.6.6.6"), (b"x-real_ip", b"6.6.6.6")])
    assert seen == {"HTTP_X_REAL_IP": "1.1.1.1"}
    seen.clear()
    await call(app, headers=[(b"x_real_ip", b"6.6.6.6"), (b"content_length", b"5"), (b"x_forwarded_for", b"6.6.6.6")])
    assert seen == {}


@pytest.mark.parametrize(
    ("root_path", "path", "expected"),
    [
        ("", "/item", ("", "/item")),
        ("/prefix", "/prefix/item", ("/prefix", "/item")),
        ("/pré", "/pré/item", ("/pr\xc3\xa9", "/item")),
    ],
)
async def test_the_prefix_is_root_path_whatever_the_process_has_in_its_environment(
    root_path: str, path: str, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails with an environ that begins as a copy of the process's environment."""
    seen: list[tuple[str, str]] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        start_response("200 OK", [])
        return [b""]

    monkeypatch.setenv("SCRIPT_NAME", "/env")
    await call(app, path=path, root_path=root_path)
    assert seen == [expected]


async def test_without_a_field_for_it_a_request_of_http_1_has_no_body() -> None:
    """So nothing is received, which is a coroutine less. Fails with `_take_body` for each request."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read() + environ.get("CONTENT_LENGTH", "none").encode()]

    assert body_of(await call(app, [b"not asked for"], http_version="1.1")) == b"none"
    assert body_of(await call(app, [b"in HTTP/2 "])) == b"in HTTP/2 10"


async def test_lifespan_is_answered() -> None:
    messages: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await WSGIApplication(lambda *_: [], Config(target="x:y"))({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# ── the response ─────────────────────────────────────────────────────────────────────────────


async def test_the_validator_of_pep_3333_finds_nothing() -> None:
    """An upload that is read in four ways, a stream, write(), errors: all through wsgiref.validate."""
    got: list[bytes] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        body = environ["wsgi.input"]
        got.extend((body.read(3), body.readline(), *body.readlines()))
        environ["wsgi.errors"].write("a complaint\n")
        environ["wsgi.errors"].flush()
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written, ")
        return iter([b"", b"and ", b"streamed"])

    sent = await call(validator(app), [b"one\ntw", b"o\nthree"], headers=[(b"content-length", b"13")])
    assert got == [b"one", b"\n", b"two\n", b"three"]
    assert sent[0] == {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/plain")],
    }
    assert body_of(sent) == b"written, and streamed"
    assert [message["more_body"] for message in sent[1:]] == [True, True, True, False]


async def test_a_client_that_expects_100_is_asked_when_the_application_reads() -> None:
    """Fails with the body received before: the client is asked for a body that is refused by its head."""
    order: list[str] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        order.append("application")
        order.append(environ["wsgi.input"].read().decode())
        start_response("200 OK", [])
        return []

    class Pieces(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"body"])

    await call(app, Pieces(), headers=[(b"content-length", b"4"), (b"expect", b"100-continue")])
    assert order == ["application", "body"]
