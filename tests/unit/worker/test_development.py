"""The application under `reload`: exceptions become pages, pages get the script, and everything else stays as it is."""

from types import SimpleNamespace
from typing import Any

import pytest

from aserver.asgi import ASGIApp, Message
from aserver.worker.development import LIVE_PATH, DevelopedApp, welcome

HTML = ((b"accept", b"text/html,*/*"),)


async def ask(app: ASGIApp, path: str = "/", headers: Any = HTML, kind: str = "http") -> list[Message]:
    """The messages of an app to one GET."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{kind}.disconnect" if kind == "http" else "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": kind, "method": "GET", "path": path, "headers": headers}, receive, send)
    return sent


def answering(*messages: Message, error: Exception | None = None) -> ASGIApp:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


def start(status: int = 200, kind: bytes = b"text/html", **more: bytes) -> Message:
    headers = [(b"content-type", kind), *((name.replace("_", "-").encode(), value) for name, value in more.items())]
    return {"type": "http.response.start", "status": status, "headers": headers}


BODY: Message = {"type": "http.response.body", "body": b"<p>hello"}


async def test_an_exception_becomes_a_page_also_behind_a_frameworks_own_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Starlette answers 500 and raises again. Fails without `hold_errors`."""
    app = DevelopedApp(answering(start(500), BODY, error=ValueError("<b>no</b>")))
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    with caplog.at_level("ERROR", logger="aserver.error"):
        await app({"type": "http", "method": "GET", "path": "/x", "headers": HTML}, receive, send)
    assert caplog.messages[0].startswith("GET /x: Traceback")
    assert "aserver/worker" not in caplog.messages[0], "the user's frames alone"
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    text = sent[1]["body"].decode()
    assert sent[0]["status"] == 500
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in text
    assert "test_development.py" in text
    assert "raise error" in text, "the source line"
    assert LIVE_PATH in text


async def test_an_answer_of_500_that_raises_nothing_is_the_apps() -> None:
    messages = [start(503), BODY]
    assert await ask(DevelopedApp(answering(*messages))) == messages


async def test_curl_gets_text() -> None:
    sent = await ask(DevelopedApp(None, failure="SyntaxError: it's broken"), headers=())
    assert sent[1]["body"] == b"SyntaxError: it's broken\n"
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/plain")


async def test_an_app_that_could_not_be_loaded_closes_websockets() -> None:
    assert (await ask(DevelopedApp(None, failure="broken"), kind="websocket"))[0]["code"] == 1012


async def test_an_exception_in_the_middle_of_an_answer_breaks_it_off() -> None:
    with pytest.raises(ValueError, match="late"):
        await ask(DevelopedApp(answering(start(), error=ValueError("late"))))


def test_the_welcome_names_an_address_that_can_be_clicked() -> None:
    assert welcome(object(), ["http://0.0.0.0:80"]).startswith("open http://127.0.0.1:80\n")
    api = SimpleNamespace(docs_url="/docs")
    assert "its API at http://[::1]:80/docs" in welcome(api, ["unix:/x", "http://[::]:80"])
    assert max(map(len, welcome(api, ["http://127.0.0.1:8000"]).splitlines())) <= 80 - len("12:01:07 ")


async def test_live_adds_the_script_to_pages_only() -> None:
    """Fails with a content-length that does not count it, or a script in what is not HTML or is compressed."""
    sent = await ask(DevelopedApp(answering(start(content_length=b"8"), BODY), live=True))
    assert LIVE_PATH.encode() in sent[1]["body"]
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
    for head in (start(kind=b"application/json"), start(content_encoding=b"br")):
        assert await ask(DevelopedApp(answering(head, BODY), live=True)) == [head, BODY]
    assert await ask(DevelopedApp(answering(start(), BODY))) == [start(), BODY], "not without live"


async def test_live_streams_and_files_pass() -> None:
    first = {**BODY, "more_body": True}
    sent = await ask(DevelopedApp(answering(start(), first, BODY), live=True))
    assert sent[1] == first
    assert sent[2]["body"].startswith(b"<p>hello")
    assert LIVE_PATH.encode() in sent[2]["body"]
    file = {"type": "http.response.pathsend", "path": "/x.html"}
    head = start(content_length=b"8")
    assert await ask(DevelopedApp(answering(head, file), live=True)) == [head, file]


async def test_each_worker_has_a_token_of_its_own() -> None:
    """By which the script knows that another worker answers."""
    one, other = [(await ask(DevelopedApp(None, failure="x"), LIVE_PATH))[1]["body"] for _ in range(2)]
    assert one.startswith(b"retry: ")
    assert one != other
