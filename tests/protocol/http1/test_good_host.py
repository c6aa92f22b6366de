"""What one connection has found out about a Host is no licence for another request with less of one."""

from aserver.asgi import Receive, Scope, Send
from tests.protocol.serving import serving


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def test_an_empty_host_that_http_1_0_may_send_stays_refused_in_1_1() -> None:
    async with serving(app) as server:
        old = await server.ask(b"GET / HTTP/1.0\r\nHost: \r\n\r\n")
        assert old.startswith(b"HTTP/1.1 200 ")
        new = await server.ask(b"GET / HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n")
        assert new.startswith(b"HTTP/1.1 400 ")


async def test_a_good_host_of_another_connection_leaves_bad_ones_refused() -> None:
    async with serving(app) as server:
        for _ in range(2):
            good = await server.ask(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            assert good.startswith(b"HTTP/1.1 200 ")
            for bad in (b"Host: a b\r\n", b"", b"Host: a.test\r\nHost: a.test\r\n"):
                answer = await server.ask(b"GET / HTTP/1.1\r\n%bConnection: close\r\n\r\n" % bad)
                assert answer.startswith(b"HTTP/1.1 400 "), bad


async def test_a_good_host_is_no_licence_to_pass_the_limits() -> None:
    """Fails without the look at the number of fields, and at the size of the head, in `on_headers_complete`."""
    async with serving(app, limit_request_fields=4) as server:
        for more, status in ((b"A: b\r\n" * 2, b"200"), (b"A: b\r\n" * 3, b"431")):
            answer = await server.ask(b"GET / HTTP/1.1\r\nHost: a.test\r\n%bConnection: close\r\n\r\n" % more)
            assert answer.startswith(b"HTTP/1.1 " + status), more
    async with serving(app, limit_request_field_size=50) as server:
        for size, status in ((47, b"200"), (48, b"431")):
            raw = b"GET / HTTP/1.1\r\nHost: a.test\r\nA: %b\r\nConnection: close\r\n\r\n" % (b"b" * size)
            assert (await server.ask(raw)).startswith(b"HTTP/1.1 " + status), size
