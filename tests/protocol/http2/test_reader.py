"""The reader and the sender alone: bytes in, calls of a sink and bytes out."""

import hpack

from aserver.protocol.http2 import frames
from tests.protocol.http2.server import PlainServer

GET = [(":method", "GET"), (":scheme", "http"), (":path", "/a?b"), (":authority", "t"), ("x", "y")]


def test_a_request_is_answered_however_it_is_cut() -> None:
    block = hpack.Encoder().encode(GET)
    raw = frames.PREFACE + frames.settings({}) + frames.headers(1, block, end=True)
    for cut in range(len(raw)):
        server = PlainServer()
        server.feed(raw[:cut])
        server.feed(raw[cut:])
        (request,) = server.requests
        assert (request.method, request.target, request.headers) == ("GET", b"/a?b", [(b"host", b"t"), (b"x", b"y")])
        assert server.sent.endswith(b"\0\0\5\0\1\0\0\0\1hello")
