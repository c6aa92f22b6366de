"""WSGI behind ASGI: each test is a corner where plain a2wsgi was seen to fail, or that must stay as it is."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from aserver.asgi import Message
from aserver.importer.wsgi import WSGIAdapter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """a2wsgi is made for asyncio."""
    return "asyncio"


StartResponse = Callable[[str, list[tuple[str, str]]], Any]


async def call(
    app: Callable[[dict[str, Any], StartResponse], Iterable[bytes]],
    pieces: Iterable[bytes] = (b"",),
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    cut: bool = False,
    client_reads: int = 1_000,
    path: str = "/",
    root_path: str = "",
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
        "method": "POST",
        "scheme": "http",
        "path": path,
        "root_path": root_path,
        "query_string": b"",
        "headers": list(headers),
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 9),
    }
    async with asyncio.timeout(20):
        await WSGIAdapter(app)(scope, receive, send)
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
    """In environ they would be the name with a hyphen, which a proxy sets. Fails without the filter in the adapter."""
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

    assert await call(app, [b"half"], cut=True) == [], "and the server is not told of an error"
    assert isinstance(seen[0], ConnectionResetError)


async def test_client_that_leaves_ends_the_stream_and_its_thread() -> None:
    closed = threading.Event()

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    await call(app, client_reads=3)  # plain a2wsgi waits here for ever
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
    """Fails without SCRIPT_NAME in WSGIAdapter._call: "/env", whose path is not cut, for all of them."""
    seen: list[tuple[str, str]] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        start_response("200 OK", [])
        return [b""]

    monkeypatch.setenv("SCRIPT_NAME", "/env")
    await call(app, path=path, root_path=root_path)
    assert seen == [expected]


async def test_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        environ["wsgi.errors"].write("an app's complaint\n")
        start_response("200 OK", [])
        return []

    await call(app)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "an app's complaint\n")


async def test_lifespan_is_answered() -> None:
    messages: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await WSGIAdapter(lambda *_: [])({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
