"""A WSGI application behind ASGI: its response, its body, and clients that leave. PEP 3333 by its own validator."""

import asyncio
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from aserver.asgi import Message
from aserver.config import Config
from aserver.errors import ApplicationError
from aserver.wsgi.application import BODY_KEPT, WSGIApplication

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


StartResponse = Callable[..., Any]


async def call(
    app: Callable[[dict[str, Any], StartResponse], Iterable[bytes]],
    pieces: Iterable[bytes] = (b"",),
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    cut: bool = False,
    client_reads: int = 1_000,
    path: str = "/",
    root_path: str = "",
    method: str = "POST",
) -> list[Message]:
    """Run one request; `cut`: the client leaves instead of ending its body; send() fails after `client_reads`."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if cut:
        messages.append({"type": "http.disconnect"})
    else:
        messages[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        if len(sent) == client_reads:
            raise ConnectionResetError("gone")
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "root_path": root_path,
        "query_string": b"",
        "headers": list(headers),
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 9),
    }
    async with asyncio.timeout(20):
        served = WSGIApplication(app, Config(target="x:y"))
        try:
            await served(scope, receive, send)
        finally:
            await served.close()
    return sent


def body_of(sent: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)


async def test_readline_with_a_limit_reads_on() -> None:
    lines: list[bytes] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        lines.append(environ["wsgi.input"].readline(100))
        lines.append(environ["wsgi.input"].readline(3))
        lines.extend(environ["wsgi.input"])
        start_response("200 OK", [])
        return []

    await call(app, [b"fir", b"st\nsecond\nth", b"ird"])
    assert lines == [b"first\n", b"sec", b"ond\n", b"third"]


async def test_chunked_body_gets_a_length() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        assert "HTTP_TRANSFER_ENCODING" not in environ
        start_response("200 OK", [])
        return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]

    pieces = [bytes([number]) * 300_000 for number in range(8)]  # more than is kept in memory
    sent = await call(app, pieces, headers=[(b"transfer-encoding", b"chunked")])
    assert body_of(sent) == b"".join(pieces)


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


async def test_body_cut_by_the_client_raises_in_the_app() -> None:
    seen: list[BaseException] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            seen.append(error)
            raise
        return []

    length = [(b"content-length", b"%d" % (2 * BODY_KEPT))]
    assert await call(app, [b"half"], headers=length, cut=True) == [], "and the server is not told of an error"
    assert isinstance(seen.pop(), ConnectionResetError)
    for headers in ([(b"content-length", b"8")], [(b"transfer-encoding", b"chunked")]):
        assert await call(app, [b"half"], headers=headers, cut=True) == []
    assert seen == [], "a small body is received first, and without it there is no request"


async def test_client_that_leaves_ends_the_stream_and_its_thread() -> None:
    closed = threading.Event()

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    await call(app, client_reads=3)
    assert closed.is_set()


async def test_close_is_called_once_also_if_the_app_fails() -> None:
    class Chunks:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            raise RuntimeError("in the middle")

        def close(self) -> None:
            Chunks.closed += 1

    def app(environ: dict[str, Any], start_response: StartResponse) -> Chunks:
        start_response("200 OK", [])
        return Chunks()

    with pytest.raises(RuntimeError, match="in the middle"):
        await call(app)
    assert Chunks.closed == 1


async def test_an_os_error_of_the_app_is_the_apps() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        raise FileNotFoundError("a template")

    with pytest.raises(FileNotFoundError, match="a template"):
        await call(app)


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
        "headers": [(b"Content-Type", b"text/plain")],
    }
    assert body_of(sent) == b"written, and streamed"
    assert [message["more_body"] for message in sent[1:]] == [True, True, True, False]


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
    assert (sent[0]["status"], sent[0]["headers"]) == (500, [(b"Content-Type", b"text/plain")])
    assert body_of(sent) == b"sorry"


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


async def test_file_wrapper_sends_a_file_in_blocks_and_closes_it() -> None:
    reads: list[int] = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reads.append(size or 0)
            return super().read(size)

    content = bytes(range(256)) * 1_000
    file = File(content)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file, 512)

    assert body_of(await call(app)) == content
    assert file.closed
    assert min(reads) >= 65_536, "not 512 bytes at once"


async def test_a_system_exit_of_the_application_is_an_error_like_another() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        sys.exit(3)

    with pytest.raises(SystemExit):
        await call(app)


# ── the request ──────────────────────────────────────────────────────────────────────────────


async def test_a_long_body_is_read_as_it_comes() -> None:
    """Fails with a body that is received whole first, as the small ones are."""
    read: list[int] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"]
        while piece := body.read1(1 << 20):
            read.append(len(piece))
        start_response("200 OK", [])
        return []

    size = 3 * BODY_KEPT
    await call(app, [b"x" * BODY_KEPT] * 3, headers=[(b"content-length", b"%d" % size)])
    assert (sum(read), len(read)) == (size, 3)


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


async def test_errors_are_records_of_the_error_log_with_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """A logging handler writes a record at once, print() in pieces; half a line is not lost."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        errors = environ["wsgi.errors"]
        errors.write("Traceback:\n  line 1\n")
        print("printed", 2, file=errors)
        errors.write("half a line")
        errors.flush()
        start_response("200 OK", [])
        return []

    with caplog.at_level(logging.INFO, "aserver.error"):
        await call(app)
    assert [each.getMessage() for each in caplog.records] == ["Traceback:\n  line 1", "printed 2", "half a line"]


async def test_each_request_has_its_own_context_variables() -> None:
    """Flask's request is one. Fails without `copy_context`: a stream leaves its own in the thread."""
    import contextvars

    variable = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        seen.append(variable.get())
        variable.set("left behind")
        start_response("200 OK", [])
        return []

    served = WSGIApplication(app, Config(target="x:y", threads=1))
    for _ in range(2):
        await one(served)
    await served.close()
    assert seen == ["clean", "clean"]


async def one(served: WSGIApplication, path: str = "/") -> list[Message]:
    """One GET."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await served(
        {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "query_string": b"",
            "headers": [],
        },
        receive,
        send,
    )
    return sent
