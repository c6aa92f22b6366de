"""Tables of ASGI messages: legal ones with the bytes that HTTP/1 makes of them, and sequences whose last is illegal."""

from typing import Any

import pytest

DATE = b"\r\ndate: now"
LENGTH_3 = (b"content-length", b"3")


def start(status: object = 200, *headers: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: Any = b"", *, more: Any = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


#: Options of the response, messages, bytes.
LEGAL = [
    pytest.param(
        {},
        [start(200, LENGTH_3), body(b"abc")],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3" + DATE + b"\r\n\r\nabc",
        id="length",
    ),
    pytest.param(
        {},
        [start(200), body(b"abc")],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3" + DATE + b"\r\n\r\nabc",
        id="length from a single body",
    ),
    pytest.param({}, [start(200), body()], b"HTTP/1.1 200 OK\r\ncontent-length: 0" + DATE + b"\r\n\r\n", id="empty"),
    pytest.param(
        {},
        [start(200), body(b"abc", more=True), body(b"", more=True), body(b"de")],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked" + DATE + b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        id="chunked",
    ),
    pytest.param(
        {},
        [start(200), body(b"", more=True), body(b"")],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked" + DATE + b"\r\n\r\n0\r\n\r\n",
        id="chunked and empty",
    ),
    pytest.param(
        {},
        [start(200, LENGTH_3), body(b"a", more=True), body(b"bc")],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3" + DATE + b"\r\n\r\nabc",
        id="length in pieces",
    ),
    pytest.param(
        {"head_only": True},
        [start(200, LENGTH_3), body(b"abc")],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3" + DATE + b"\r\n\r\n",
        id="HEAD",
    ),
    pytest.param(
        {"head_only": True},
        [start(200, LENGTH_3), body()],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3" + DATE + b"\r\n\r\n",
        id="HEAD without body",
    ),
    pytest.param(
        {"head_only": True},
        [start(200), body()],
        b"HTTP/1.1 200 OK" + DATE + b"\r\n\r\n",
        id="HEAD says no length it does not know",
    ),
    pytest.param(
        {"head_only": True},
        [start(200), body(b"abc", more=True), body(b"d")],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked" + DATE + b"\r\n\r\n",
        id="HEAD chunked",
    ),
    pytest.param({}, [start(204), body()], b"HTTP/1.1 204 No Content" + DATE + b"\r\n\r\n", id="204"),
    pytest.param(
        {},
        [start(204, (b"content-length", b"0")), body()],
        b"HTTP/1.1 204 No Content" + DATE + b"\r\n\r\n",
        id="204 never with content-length",
    ),
    pytest.param(
        {},
        [start(304, LENGTH_3), body()],
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3" + DATE + b"\r\n\r\n",
        id="304",
    ),
    pytest.param(
        {"modern": False, "keep_alive": False},
        [start(200), body(b"abc", more=True), body(b"d")],
        b"HTTP/1.1 200 OK\r\nconnection: close" + DATE + b"\r\n\r\nabcd",
        id="1.0 ends with the connection",
    ),
    pytest.param(
        {"modern": False},
        [start(200), body(b"abc", more=True), body(b"d")],
        b"HTTP/1.1 200 OK\r\nconnection: close" + DATE + b"\r\n\r\nabcd",
        id="1.0 keep-alive cannot be without a length",
    ),
    pytest.param(
        {"modern": False},
        [start(200, LENGTH_3), body(b"abc")],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive" + DATE + b"\r\n\r\nabc",
        id="1.0 keep-alive",
    ),
    pytest.param(
        {},
        [start(200, LENGTH_3, (b"Connection", b"x, Close")), body(b"abc")],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close" + DATE + b"\r\n\r\nabc",
        id="application closes",
    ),
    pytest.param(
        {},
        [start(200, LENGTH_3, (b"Transfer-Encoding", b"chunked"), (b"connection", b"keep-alive")), body(b"abc")],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3" + DATE + b"\r\n\r\nabc",
        id="hop-by-hop fields are the server's",
    ),
    pytest.param(
        {},
        [
            start(200, (b"Content-Length", b"3"), (b"X-Own", b"1"), (b"Set-Cookie", b"a"), (b"set-cookie", b"b")),
            body(b"abc"),
        ],
        b"HTTP/1.1 200 OK\r\nx-own: 1\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 3" + DATE + b"\r\n\r\nabc",
        id="names in lower case, repeated fields kept",
    ),
    pytest.param(
        {},
        [start(200, LENGTH_3, (b"Date", b"then")), body(b"abc")],
        b"HTTP/1.1 200 OK\r\ndate: then\r\ncontent-length: 3\r\n\r\nabc",
        id="own date",
    ),
    pytest.param(
        {"date": None},
        [start(200, LENGTH_3), body(b"abc")],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        id="no date",
    ),
    pytest.param(
        {"pairs": [(b"vary", b"x"), (b"server", b"aserver")]},
        [start(200, LENGTH_3, (b"vary", b"mine")), body(b"abc")],
        b"HTTP/1.1 200 OK\r\nvary: mine\r\ncontent-length: 3\r\nserver: aserver" + DATE + b"\r\n\r\nabc",
        id="configured fields only where the application set none",
    ),
    pytest.param(
        {},
        [start(200), body(bytearray(b"abc"))],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3" + DATE + b"\r\n\r\nabc",
        id="bytearray",
    ),
]

ILLEGAL = [
    pytest.param([body(b"x")], id="body first"),
    pytest.param([start(200), start(200)], id="two starts"),
    pytest.param([start(200), body(b"x"), body(b"y")], id="body after the end"),
    pytest.param([start(200), body(b"x"), start(200)], id="second response"),
    pytest.param([start(200, LENGTH_3), body(b"abcd")], id="too much"),
    pytest.param([start(200, LENGTH_3), body(b"ab", more=True), body(b"cd")], id="too much in the second piece"),
    pytest.param([start(200, LENGTH_3), body(b"ab")], id="too little"),
    pytest.param([start(200, LENGTH_3), body(b"ab", more=True), body(b"")], id="too little in the second piece"),
    pytest.param([start(99)], id="status"),
    pytest.param([start(200, (b"a", b"b\r\nc: d"))], id="CRLF in a value"),
    pytest.param([start(200, (b"content-type", b"b\nc"))], id="LF in the value of a plain field"),
    pytest.param([start(200, (b"content-type", b"b\rc"))], id="CR"),
    pytest.param([start(200, (b"content-type", b"b\0c"))], id="NUL"),
    pytest.param([start(200, (b"a b", b"c"))], id="space in a name"),
    pytest.param([start(200, (b"a:", b"c"))], id="colon in a name"),
    pytest.param([start(200, (b":status", b"200"))], id="pseudo header"),
    pytest.param([start(200, (b"", b"c"))], id="empty name"),
    pytest.param([start(200, ("a", b"c"))], id="name is str"),
    pytest.param([start(200, (b"a", "c"))], id="value is str"),
    pytest.param([start(200, (b"content-type", "c"))], id="value of a plain field is str"),
    pytest.param([start(200, (b"a", 1))], id="value is int"),
    pytest.param([start(200, (b"a",))], id="not a pair"),
    pytest.param([start(200, LENGTH_3, (b"content-length", b"4"))], id="two lengths"),
    pytest.param([start(200, (b"content-length", b"-1"))], id="negative length"),
    pytest.param([start(200, (b"content-length", b"3x"))], id="no number"),
    pytest.param([start(200), body("text")], id="body is str"),
    pytest.param([start(200, trailers=True)], id="trailers for a client that takes none"),
]
