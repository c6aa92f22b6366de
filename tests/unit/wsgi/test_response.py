"""A WSGI application's response, by PEP 3333."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from aserver.asgi import REASON, Message
from aserver.errors import ApplicationError
from tests.unit.wsgi.calling import StartResponse, body_of, call

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_start_response_again_with_exc_info_replaces_the_head_that_was_not_sent() -> None:
    """So that frameworks turn a failure into 500. Fails with the second call ignored, as a2wsgi did: 200."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("X-Half", "made")])
        try:
            raise RuntimeError("the template")
        except RuntimeError:
            start_response("500 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    sent = await call(app)
    assert (sent[0]["status"], sent[0]["headers"]) == (500, [(b"content-type", b"text/plain"), (REASON, b"Sorry")])
    assert body_of(sent) == b"sorry"


async def test_a_status_without_a_body_that_was_replaced_says_nothing_of_the_next() -> None:
    """Fails with the 204 remembered: the error page ends after its first piece, with that one's length."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("204 No Content", [])
        try:
            raise RuntimeError("late")
        except RuntimeError:
            start_response("500 Sorry", [], sys.exc_info())
        return [b"so", b"rry"]

    assert body_of(await call(app)) == b"sorry"


async def test_start_response_with_exc_info_after_the_head_raises_it_again() -> None:
    """Only so the server hears that the answer is not whole. Fails without the raise: "sorry" behind half a page."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"half a page"
        try:
            raise RuntimeError("the template")
        except RuntimeError:
            start_response("500 Sorry", [], sys.exc_info())
        yield b"sorry"

    sent: list[Message] = []
    with pytest.raises(RuntimeError, match="the template"):
        sent += await call(app)
    assert body_of(sent) == b""


WRONG: dict[str, tuple[Callable[[StartResponse], object], str]] = {
    "twice": (lambda start: (start("200 OK", []), start("200 OK", [])), "second time"),
    "never": (lambda start: None, "without having called"),
    "status": (lambda start: start(200, []), "must be like '200 OK'"),
    "an interim answer": (lambda start: start("101 Switching Protocols", []), "from 200 to 599"),
    "a header of bytes": (lambda start: start("200 OK", [(b"X", "y")]), "pairs of latin-1 texts"),
    "a header beyond latin-1": (lambda start: start("200 OK", [("X", "\u20ac")]), "pairs of latin-1 texts"),
    "a piece of text": (lambda start: start("200 OK", [])("text"), "is str, must be bytes"),
}


@pytest.mark.parametrize("which", WRONG)
async def test_what_pep_3333_forbids_is_an_error_in_the_application(which: str) -> None:
    use, text = WRONG[which]

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        use(start_response)
        return []

    with pytest.raises(ApplicationError, match=text):
        await call(app)


async def test_a_body_of_its_whole_length_is_complete_and_the_rest_of_the_application_runs() -> None:
    """The client need not wait for what comes after the last piece. Fails without the look at Content-Length."""
    steps: list[str] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("content-length", "4")])
        yield b"bo"
        yield b"dy"
        steps.append("the end")

    sent = await call(app)
    assert [message.get("more_body") for message in sent] == [None, True, False]
    assert steps == ["the end"]


async def test_a_body_beyond_its_length_is_an_error() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "1")])
        return [b"x", b"y"]

    with pytest.raises(ApplicationError, match="after the 1 bytes of its Content-Length"):
        await call(app)


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
async def test_an_endless_body_that_is_not_sent_is_closed_at_its_first_piece(method: str, status: str) -> None:
    """HEAD /stream. Fails without `_head_only`: a thread runs for ever."""
    closed = threading.Event()

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response(status, [])
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    sent = await call(app, method=method)
    assert [message.get("more_body") for message in sent] == [None, False]
    assert closed.is_set()


@pytest.mark.parametrize(
    ("pieces", "bodies"),
    [([b"whole"], [b"whole"]), ([b"two ", b"pieces"], [b""]), (iter([b"a generator's first"]), [b""])],
)
async def test_head_tells_no_length_that_get_would_not_have(pieces: Any, bodies: list[bytes]) -> None:
    """The protocol makes a length of a whole body. Fails with the first piece handed on: its length is the answer's."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return pieces

    sent = await call(app, method="HEAD")
    assert [message["body"] for message in sent[1:]] == bodies


async def test_fields_of_the_connection_are_not_the_applications() -> None:
    """PEP 3333 forbids them; gunicorn drops them, too. The protocol knows what to do with the rest."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Upgrade", "h2c"), ("TE", "trailers"), ("Trailer", "X"), ("Connection", "close")])
        return []

    assert (await call(app))[0]["headers"] == [(b"connection", b"close")]


@pytest.mark.parametrize("pieces", [[b"whole"], (b"whole",)])
async def test_a_list_of_one_piece_is_a_whole_body(pieces: Sequence[bytes]) -> None:
    """It gets a length instead of chunks. Fails with `last=False`: the end comes as another message."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Sequence[bytes]:
        start_response("200 OK", [])
        return pieces

    assert [message.get("more_body") for message in await call(app)] == [None, False]


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("404 Nothing here", 404, b"Nothing here"),
        ("404 NOT FOUND", 404, b"NOT FOUND"),
        ("299 H\xe4lf", 299, b"H\xe4lf"),
        ("404 Not Found", 404, None),
        ("404", 404, None),
        ("404 ", 404, None),
    ],
)
async def test_a_reason_phrase_is_sent_where_it_is_not_the_standards(
    status: str, code: int, reason: bytes | None
) -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response(status, [("X", "y")])
        return [b""]

    head = (await call(app))[0]
    assert head["status"] == code
    assert head["headers"] == [(b"x", b"y"), *([(REASON, reason)] if reason is not None else [])]
