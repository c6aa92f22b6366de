"""A head whose fields came before is served without being parsed again, and nothing but time tells the difference."""

import asyncio
import importlib.util
from typing import Any

import httptools
import pytest
from httptools import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from aserver.asgi import Receive, Scope, Send
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.serving import answer, service_of
from tests.protocol.wiretap import TURNS, Tap, Wiretap

#: Whether plain heads never go through the parser.
NATIVE = importlib.util.find_spec("aserver.protocol.http1.plain") is not None

FIELDS = b" HTTP/1.1\r\nHost: t\r\nX-A: 1\r\nx-a:  2 \r\nConnection: keep-alive\r\n\r\n"


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The targets of the heads that went through the parser."""
    if NATIVE:
        pytest.skip("compiled, plain heads never go through the parser")
    targets: list[bytes] = []

    class Noting:
        def __init__(self, callbacks: Any) -> None:
            self._callbacks = callbacks
            self._target = b""
            for name in ("on_header", "on_body", "on_message_complete"):
                setattr(self, name, getattr(callbacks, name))

        def on_url(self, url: bytes) -> None:
            self._target = url
            self._callbacks.on_url(url)

        def on_headers_complete(self) -> None:
            targets.append(self._target)
            self._callbacks.on_headers_complete()

    monkeypatch.setattr(httptools, "HttpRequestParser", lambda callbacks: HttpRequestParser(Noting(callbacks)))
    return targets


class Scopes:
    """Connections to an application that keeps its scopes, as they were before it spoiled them."""

    def __init__(self, **values: Any) -> None:
        self.scopes: list[Scope] = []
        self.service = service_of(self._app, **values)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append({**scope, "headers": list(scope["headers"]), "extensions": dict(scope["extensions"])})
        scope["headers"].clear()  # it may: it is the application's
        scope["extensions"].clear()
        scope["asgi"].clear()
        await answer(send)

    def connect(self) -> Any:
        return Tap().plug(self.service).protocol

    async def feed(self, connection: Any, data: bytes) -> Scope:
        """The scope that this head became."""
        before = len(self.scopes)
        connection.data_received(data)
        await turns_of_the_loop(TURNS)
        assert len(self.scopes) == before + 1
        return self.scopes[-1]


async def test_the_scope_is_the_one_that_parsing_makes(parsed: list[bytes]) -> None:
    service = Scopes(root_path="/app")
    connection = service.connect()
    await service.feed(connection, b"GET /first" + FIELDS)
    for target in (b"/", b"/a%20b?c=%20&d", b"//e?f?g", b"/%e4|\"'{}"):
        service.service.heads.known = None
        fresh = await service.feed(service.connect(), b"GET " + target + FIELDS.replace(b"X-A", b"X-a"))
        again = await service.feed(connection, b"GET " + target + FIELDS)
        assert again == fresh
        assert again["headers"][1:3] == [(b"x-a", b"1"), (b"x-a", b"2")]
    assert parsed == [b"/first", b"/", b"/a%20b?c=%20&d", b"//e?f?g", b"/%e4|\"'{}"]


async def test_another_connection_knows_what_one_has_learnt(parsed: list[bytes]) -> None:
    service = Scopes()
    for target in (b"/1", b"/2", b"/3"):
        assert (await service.feed(service.connect(), b"GET " + target + FIELDS))["raw_path"] == target
    assert parsed == [b"/1"]


@pytest.mark.skipif(NATIVE, reason="compiled, plain heads never go through the parser")
async def test_a_parser_is_made_for_what_has_to_be_parsed() -> None:
    """And not before: it is a twentieth of what a new connection for each request costs."""
    service = Scopes()
    await service.feed(service.connect(), b"GET /" + FIELDS)
    connection = service.connect()
    await service.feed(connection, b"GET /" + FIELDS)
    assert connection.handler.reader.head is None
    assert (await service.feed(connection, b"GET / HTTP/1.1\r\nHost: u\r\n\r\n"))["headers"] == [(b"host", b"u")]
    assert connection.handler.reader.head is not None


async def test_what_a_proxy_says_is_believed_by_each_connection_for_itself(parsed: list[bytes]) -> None:
    told = b" HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Prefix: /p\r\n\r\n"
    service = Scopes(proxy_headers=True, forwarded_allow_ips=["192.0.2.1"])
    trusted = service.connect()
    for _ in range(2):
        scope = await service.feed(trusted, b"GET /x" + told)
        assert (scope["client"], scope["path"], scope["root_path"]) == (("198.51.100.7", 0), "/p/x", "/p")
    stranger = service.connect()
    stranger.client = ("203.0.113.5", 1)
    scope = await service.feed(stranger, b"GET /x" + told)
    assert (scope["client"], scope["path"], scope["root_path"]) == (("203.0.113.5", 1), "/x", "")
    assert parsed == [b"/x"]


@pytest.mark.parametrize(
    "line",
    [b"GET /#f", b"GET /a b", b"GET  /", b"GET /\r\nA: b", b"GET /\x7f", b"GET /\xff", b"GET", b"\nGET /"],
)
async def test_a_bad_line_before_known_fields_is_refused(line: bytes) -> None:
    outcome = await Wiretap().ask([b"GET /" + FIELDS, line + FIELDS])
    assert outcome.statuses == [200, 400]
    assert not outcome.open


async def test_a_known_head_is_held_to_the_limits() -> None:
    tap = Wiretap(limit_request_line=100)
    outcome = await tap.ask([b"GET /" + FIELDS, b"GET /" + b"a" * 100 + FIELDS])
    assert outcome.statuses == [200, 414]


async def test_a_body_or_the_rest_of_a_head_is_no_request_though_it_looks_like_a_known_one() -> None:
    known = b"GET /smuggled" + FIELDS
    head = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(known)
    outcome = await Wiretap().ask([b"GET /" + FIELDS, head, known, b"GET /2 HTTP/1.1\r\nA: ", known])
    assert outcome.called == [b"GET /? t 1.1", b"POST /? t 1.1", b"GET /2? t 1.1"]
    assert outcome.bodies[1].endswith(known)
    last = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    outcome = await Wiretap().ask([b"GET /" + FIELDS, last + known, known])
    assert outcome.called == [b"GET /? t 1.1"] * 2


async def test_a_known_head_that_is_the_last_one(parsed: list[bytes]) -> None:
    """The parser, which would refuse what follows, has not seen it."""
    last = FIELDS.replace(b"keep-alive", b"close")
    tap = Wiretap()
    for pieces in ([b"GET /1" + last, b"GET /2" + last], [b"GET /1" + last + b"GET /2" + last], [b"GET /1" + last]):
        outcome = await tap.ask(pieces)
        assert outcome.called == [b"GET /1? t 1.1"]
        assert outcome.statuses == [200]
        assert b"\r\nconnection: close\r\n" in outcome.written
        assert not outcome.open
    assert parsed == [b"/1", b"/1"]  # when it came alone it was known from the first time


async def test_a_known_request_waits_for_the_answer_before_it() -> None:
    go_on = asyncio.Event()
    begun: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        if scope["path"] == "/2":
            await go_on.wait()
        await answer(send, scope["raw_path"])

    service = service_of(app)
    tap = Tap().plug(service)
    connection = tap.protocol
    for target in (b"/1", b"/2", b"/3", b"/4"):
        connection.data_received(b"GET " + target + FIELDS)
        await turns_of_the_loop(TURNS if target != b"/3" else 0)
    assert begun == ["/1", "/2"]
    go_on.set()
    while service.active or connection.handler.current is not None:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun == ["/1", "/2", "/3", "/4"]
    assert [part[:2] for part in tap.written.split(b"\r\n\r\n")[1:]] == [b"/1", b"/2", b"/3", b"/4"]


@pytest.mark.parametrize("between", [b"", b"\r\n", b"\r\n\r\n"])
async def test_two_requests_are_not_remembered_as_one(between: bytes) -> None:
    tap = Wiretap()
    for _ in range(3):
        outcome = await tap.ask([b"GET /1" + FIELDS + between + b"GET /2" + FIELDS])
        assert outcome.called == [b"GET /1? t 1.1", b"GET /2? t 1.1"]
    outcome = await tap.ask([b"GET /1" + FIELDS])
    assert outcome.called == [b"GET /1? t 1.1"]


async def test_nothing_is_read_behind_the_last_request() -> None:
    close = b" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    tap = Wiretap()
    for _ in range(2):
        outcome = await tap.ask([b"GET /1" + close + b"GET /2" + close])
        assert outcome.statuses == [200]
        assert not outcome.open


PIECES = [b"GET /a" + FIELDS, b"GET /b?c" + FIELDS, b"POST /d" + FIELDS[:-2] + b"Content-Length: 3\r\n\r\nabc"]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), st.sets(st.integers(1, 300), max_size=6))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_between(requests: list[bytes], cuts: set[int]) -> None:
    """Known and new heads, bodies and pieces in any order are answered alike, in order."""
    raw = b"".join(requests)
    points = sorted({cut % len(raw) for cut in cuts})
    pieces = [raw[begin:end] for begin, end in zip([0, *points], [*points, len(raw)], strict=True)]

    wanted = [request.split(b" ")[1] for request in requests]

    async def ask() -> None:
        tap = Wiretap()
        assert (await tap.ask([PIECES[0]])).statuses == [200]  # now it is known
        for given_ in (requests, pieces):
            outcome = await tap.ask(given_)
            assert [line.split(b" ")[1].rstrip(b"?") for line in outcome.called] == wanted
            assert outcome.statuses == [200] * len(wanted)
            assert outcome.open

    asyncio.run(ask())
