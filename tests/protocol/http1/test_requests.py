"""Requests: what reaches the application's scope, and what is refused before it."""

import re
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from tests.harness.waiting import eventually
from tests.protocol.serving import GET, LAST_GET, answer, body_of, echo, field, read_all, serving, status
from tests.protocol.wiretap import Tap, Wiretap

LAST = b"Connection: close\r\n"


async def scope_of(request: bytes, **settings: Any) -> Scope:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await read_all(receive)
        await answer(send)

    async with serving(app, **settings) as server:
        response = await server.ask(request)
        assert status(response) == 200, response
        assert len(scopes) == 1
        if scopes[0]["server"] is not None:
            assert scopes[0]["server"] == ("127.0.0.1", server.port)
    return scopes[0]


async def test_scope() -> None:
    scope = await scope_of(
        b"GET /a%20b/%C3%A9?x=%20&y HTTP/1.1\r\nHost: t:80\r\nX-Thing: A b \r\nCOOKIE: a\r\ncookie: b\r\nEmpty:\r\n"
        + LAST
        + b"\r\n"
    )
    assert isinstance(scope["client"], tuple)
    assert scope["client"][0] == "127.0.0.1"
    del scope["client"], scope["server"]
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "method": "GET",
        "path": "/a b/é",
        "raw_path": b"/a%20b/%C3%A9",
        "query_string": b"x=%20&y",
        "headers": [
            (b"host", b"t:80"),
            (b"x-thing", b"A b"),
            (b"cookie", b"a"),
            (b"cookie", b"b"),
            (b"empty", b""),
            (b"connection", b"close"),
        ],
        "state": {},
        "extensions": {"http.response.early_hint": {}},
    }


async def test_scope_of_1_0() -> None:
    scope = await scope_of(b"GET / HTTP/1.0\r\n\r\n")
    assert scope["http_version"] == "1.0"
    assert scope["headers"] == []
    assert scope["extensions"] == {}


async def test_trailers_only_for_those_who_take_them() -> None:
    scope = await scope_of(b"GET / HTTP/1.1\r\nHost: t\r\nTE: gzip, trailers\r\n" + LAST + b"\r\n")
    assert "http.response.trailers" in scope["extensions"]
    scope = await scope_of(b"GET / HTTP/1.0\r\nTE: trailers\r\n\r\n")
    assert "http.response.trailers" not in scope["extensions"]


async def test_root_path_is_part_of_path() -> None:
    scope = await scope_of(b"GET /a%20b HTTP/1.1\r\nHost: t\r\n" + LAST + b"\r\n", root_path="/api")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/a b", b"/api/a%20b")


async def test_absolute_form_wins_over_host() -> None:
    scope = await scope_of(b"GET http://other:81/x?y HTTP/1.1\r\nHost: t\r\n" + LAST + b"\r\n")
    assert (scope["path"], scope["query_string"]) == ("/x", b"y")
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"other:81"]


async def test_state_is_copied_into_each_scope() -> None:
    seen: list[dict[str, Any]] = []
    shared: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["state"]))
        scope["state"]["mine"] = 1
        scope["state"]["list"].append(1)
        await answer(send)

    async with serving(app, state={"list": shared}) as server:
        await server.ask(LAST_GET)
        await server.ask(LAST_GET)
    assert seen == [{"list": shared}, {"list": shared}]
    assert shared == [1, 1]


def head(*lines: bytes, version: bytes = b"1.1", method: bytes = b"GET", target: bytes = b"/") -> bytes:
    return b"\r\n".join((b"%s %s HTTP/%s" % (method, target, version), *lines, b"", b""))


HOST = b"Host: t"

REFUSED = {
    "no Host": (400, head()),
    "no Host, but Connection": (400, head(b"Connection: keep-alive")),
    "two Hosts": (400, head(HOST, HOST)),
    "two different Hosts": (400, head(HOST, b"Host: u")),
    "empty Host": (400, head(b"Host:")),
    "malformed Host": (400, head(b"Host: a b")),
    "Host with path": (400, head(b"Host: a/b")),
    "two lengths": (400, head(HOST, b"Content-Length: 3", b"Content-Length: 3", method=b"POST") + b"abc"),
    "conflicting lengths": (400, head(HOST, b"Content-Length: 3", b"Content-Length: 4", method=b"POST") + b"abc"),
    "listed length": (400, head(HOST, b"Content-Length: 3, 3", method=b"POST") + b"abc"),
    "signed length": (400, head(HOST, b"Content-Length: +3", method=b"POST") + b"abc"),
    "negative length": (400, head(HOST, b"Content-Length: -3", method=b"POST") + b"abc"),
    "hex length": (400, head(HOST, b"Content-Length: 0x3", method=b"POST") + b"abc"),
    "empty length": (400, head(HOST, b"Content-Length:", method=b"POST") + b"abc"),
    "length and chunked": (
        400,
        head(HOST, b"Content-Length: 3", b"Transfer-Encoding: chunked", method=b"POST") + b"0\r\n\r\n",
    ),
    "chunked and length": (
        400,
        head(HOST, b"Transfer-Encoding: chunked", b"Content-Length: 3", method=b"POST") + b"0\r\n\r\n",
    ),
    "unknown coding": (501, head(HOST, b"Transfer-Encoding: gzip, chunked", method=b"POST") + b"0\r\n\r\n"),
    "chunked not last": (400, head(HOST, b"Transfer-Encoding: chunked, gzip", method=b"POST") + b"0\r\n\r\n"),
    "coding alone": (400, head(HOST, b"Transfer-Encoding: gzip", method=b"POST") + b"0\r\n\r\n"),
    "two codings": (
        400,
        head(HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", method=b"POST") + b"0\r\n\r\n",
    ),
    "coding in 1.0": (400, head(HOST, b"Transfer-Encoding: chunked", method=b"POST", version=b"1.0") + b"0\r\n\r\n"),
    "unknown expectation": (417, head(HOST, b"Expect: miracles")),
    "version 2.0": (505, head(HOST, version=b"2.0")),
    "version 1.2": (505, head(HOST, version=b"1.2")),
    "CONNECT": (501, head(HOST, method=b"CONNECT", target=b"a:1")),
    "asterisk": (400, head(HOST, target=b"*")),
    "authority form": (400, head(HOST, target=b"a:1")),
    "space in the target": (400, head(HOST, target=b"/a b")),
    "bytes above ASCII in the target": (400, head(HOST, target=b"/\xc3\xa9")),
    "folded field": (400, head(HOST, b"A: b", b" c")),
    "space before the colon": (400, head(HOST, b"A : b")),
    "NUL in a value": (400, head(HOST, b"A: \0")),
    "control character in a value": (400, head(HOST, b"A: \x01")),
    "LF alone": (400, b"GET / HTTP/1.1\nHost: t\n\n"),
    "bare CR": (400, head(HOST, b"A: b\rc")),
    "field without colon": (400, head(HOST, b"A")),
    "chunk size": (400, head(HOST, b"Transfer-Encoding: chunked", method=b"POST") + b"zz\r\n"),
    "chunk without CRLF": (400, head(HOST, b"Transfer-Encoding: chunked", method=b"POST") + b"1\r\nab\r\n"),
    "request line": (414, head(HOST, target=b"/" + b"a" * 8190)),
    "many fields": (431, head(HOST, *[b"A: b"] * 100)),
    "large field": (431, head(HOST, b"A: " + b"b" * 8190)),
    "large name": (431, head(HOST, b"A" * 8190 + b": b")),
    "endless request line": (414, b"GET /" + b"a" * 20000),
    "endless field": (431, b"GET / HTTP/1.1\r\nHost: t\r\nA: " + b"b" * 100000),
    "endless fields": (431, b"GET / HTTP/1.1\r\nHost: t\r\n" + b"A: b\r\n" * 20000),
    "endless trailers": (
        431,
        head(HOST, b"Transfer-Encoding: chunked", method=b"POST") + b"0\r\n" + b"A: b\r\n" * 20000,
    ),
    "garbage": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
}


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str, pieces: str) -> None:
    """The client reads the answer, the application never sees the request, nothing after it is read as a request."""
    wanted, request = REFUSED[name]
    if pieces == "bytes" and len(request) > 1000:
        pytest.skip("too long to be sent byte by byte")
    called: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":  # the head was in order, the body is not
            await receive()
            assert (await receive())["type"] == "http.disconnect"
        else:
            called.append(scope)

    async with serving(app) as server:
        client = await server.connect()
        if pieces == "bytes":
            for position in range(len(request)):
                await client.send(request[position : position + 1])
        else:
            await client.send(request)
        await client.send(LAST_GET)
        response = await client.rest()
    assert status(response) == wanted, response
    assert field(response, b"connection") == b"close"
    assert len(re.findall(rb"HTTP/1\.1 ", response)) == 1, response
    assert not called


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        pytest.param(
            head(HOST, b"Content-Length: 3", b"Connection: close", method=b"POST") + b"abc", b"POST / abc", id="length"
        ),
        pytest.param(
            head(HOST, b"Transfer-Encoding: Chunked", b"Connection: close", method=b"PUT")
            + b"1;x=y\r\na\r\n02\r\nbc\r\n0\r\nX: y\r\n\r\n",
            b"PUT / abc",
            id="chunked with extension and trailer",
        ),
        pytest.param(b"\r\n\r\n" + head(HOST, b"Connection: close"), b"GET / ", id="empty lines first"),
        pytest.param(head(HOST, b"Connection: close", target=b"http://t"), b"GET / ", id="absolute without path"),
        pytest.param(head(HOST, b"Connection: close", target=b"*", method=b"OPTIONS"), b"OPTIONS * ", id="OPTIONS *"),
        pytest.param(head(b"Host:\t t \t", b"Connection: close"), b"GET / ", id="whitespace around values"),
        pytest.param(head(version=b"1.0"), b"GET / ", id="1.0 without Host"),
        pytest.param(
            head(b"Content-Length: 3", version=b"1.0", method=b"POST") + b"abc", b"POST / abc", id="1.0 with body"
        ),
        pytest.param(head(b"Host: [::1]:8000", b"Connection: close"), b"GET / ", id="IPv6 Host"),
        pytest.param(head(HOST, b"Connection: Upgrade, close", b"Upgrade: h2c"), b"GET / ", id="Upgrade ignored"),
        pytest.param(
            head(
                HOST,
                b"Connection: Upgrade, HTTP2-Settings",
                b"Upgrade: h2c",
                b"HTTP2-Settings: x",
                b"Content-Length: 3",
                method=b"POST",
            )
            + b"abc"
            + head(HOST, b"Connection: close", target=b"/2"),
            b"POST / abc",
            id="Upgrade with body",
        ),
        pytest.param(
            head(HOST, b"Connection: Upgrade", b"Upgrade: h2c", b"Transfer-Encoding: chunked", method=b"POST")
            + b"3\r\nabc\r\n0\r\n\r\n"
            + head(HOST, b"Connection: close", target=b"/2"),
            b"POST / abc",
            id="Upgrade with chunked body",
        ),
        pytest.param(
            head(HOST, b"Connection: Upgrade", b"Upgrade: h2c") + head(HOST, b"Connection: close", target=b"/2"),
            b"GET / ",
            id="Upgrade and a request behind it",
        ),
    ],
)
async def test_taken(request_: bytes, wanted: bytes) -> None:
    async with serving(echo) as server:
        whole = await server.ask(request_)
        client = await server.connect()
        for position in range(len(request_)):
            await client.send(request_[position : position + 1])
        pieces = await client.rest()
    for response in (whole, pieces):
        assert status(response) == 200
        assert body_of(response).startswith(wanted), response
        assert response.count(b"HTTP/1.1 200") == request_.count(b" HTTP/1.")


async def test_nothing_after_a_closing_request_is_read() -> None:
    async with serving(echo) as server:
        response = await server.ask(LAST_GET + b"GET /2 HTTP/1.1\r\nHost: t\r\n\r\n" + b"\0garbage")
    assert response.count(b"HTTP/1.1") == 1
    assert status(response) == 200


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(LAST_GET, id="plain"),
        pytest.param(head(HOST, b"Connection: close", b"Content-Length: 3", method=b"POST") + b"abc", id="with a body"),
        pytest.param(
            head(HOST, b"Connection: close", b"Transfer-Encoding: chunked", method=b"POST") + b"1\r\na\r\n0\r\n\r\n",
            id="with chunks",
        ),
        pytest.param(head(version=b"1.0"), id="1.0"),
        pytest.param(GET + LAST_GET, id="the second"),
        pytest.param(head(HOST, b"Connection: close", method=b"BREW"), id="unknown method"),
    ],
)
@pytest.mark.parametrize("behind", [GET, GET * 3, b"GET  / HTTP/1.1\r\n\r\n", b"\0" * 9])
async def test_nothing_is_made_of_bytes_behind_the_last_request(last: bytes, behind: bytes) -> None:
    """They are not even looked at, wherever the network cuts, and whether or not the last one is answered already.

    That such a request is never served has a second guard (`answered` begins none after a close); this is the first.
    Fails with a reader that is never OVER.
    """
    sent, wanted = last + behind, last.count(b" HTTP/")
    service = Wiretap().service
    for cut in range(len(last) - 30, len(sent)):
        connection = Tap().plug(service).protocol
        connection.data_received(sent[:cut])  # no turn of the loop: no application has begun
        connection.data_received(sent[cut:])
        pipeline = connection.handler.pipeline
        assert (connection.handler.current is not None) + (len(pipeline.exchanges) if pipeline else 0) == wanted, cut
        assert pipeline is None or pipeline.refusal is None, cut
        connection.connection_lost(None)
    await eventually(lambda: not service.active)


async def test_limits_are_exact() -> None:
    async with serving(echo, limit_request_line=100, limit_request_fields=3, limit_request_field_size=50) as server:
        line = b"GET /" + b"a" * (100 - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
        field_ = b"A: " + b"b" * 47
        for request, wanted in (
            (b"%s\r\nHost: t\r\n%s\r\n" % (line, LAST), 200),
            (b"%s\r\nHost: t\r\n%s\r\n" % (line.replace(b"/a", b"/aa"), LAST), 414),
            (b"GET / HTTP/1.1\r\nHost: t\r\n%s\r\n%s\r\n" % (field_, LAST), 200),
            (b"GET / HTTP/1.1\r\nHost: t\r\n%sb\r\n%s\r\n" % (field_, LAST), 431),
            (b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\n%s\r\n" % LAST, 200),
            (b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\nA: b\r\n%s\r\n" % LAST, 431),
        ):
            assert status(await server.ask(request)) == wanted, request


@pytest.mark.parametrize("before", [b"", GET])
async def test_a_flood_of_fields_is_not_parsed_to_its_end(before: bytes) -> None:
    """The parser cannot be stopped, and makes objects of all it is given. Fails without SLICE."""
    service = Wiretap().service
    tap = Tap().plug(service)
    connection = tap.protocol
    connection.data_received(before + b"GET / HTTP/1.1\r\nHost: t\r\n" + b"A: b\r\n" * 40_000)
    assert 100 < len(connection.handler.reader.head.fields) < 2000  # made by the parser, and kept for the access log
    await eventually(lambda: b" 431 " in tap.written)
    connection.connection_lost(None)
    await eventually(lambda: not service.active)


async def test_limit_request_body() -> None:
    async with serving(echo, limit_request_body=3) as server:
        for request, wanted in (
            (head(HOST, b"Content-Length: 3", b"Connection: close", method=b"POST") + b"abc", 200),
            (head(HOST, b"Content-Length: 4", method=b"POST") + b"abcd", 413),
            (
                head(HOST, b"Transfer-Encoding: chunked", b"Connection: close", method=b"POST")
                + b"3\r\nabc\r\n0\r\n\r\n",
                200,
            ),
            (head(HOST, b"Transfer-Encoding: chunked", method=b"POST") + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", 413),
        ):
            assert status(await server.ask(request)) == wanted
