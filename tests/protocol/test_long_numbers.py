"""Numbers of thousands of digits, wherever a client may write one: int() raises ValueError above 4300."""

import ast
from pathlib import Path

import pytest

import aserver.protocol
from aserver.asgi import Receive, Scope, Send
from aserver.errors import ClientError
from aserver.protocol.peer.forwarded import Forwarding, Origin
from aserver.protocol.peer.proxy_protocol import ProxyHeader
from aserver.protocol.peer.trust import Peers
from tests.protocol.http1.framing_rows import CHUNKED, HOST, WEBSOCKET, head, post
from tests.protocol.serving import serving, status
from tests.protocol.wiretap import Wiretap

LONG = b"1" * 5000
ZEROS = b"0" * 5000 + b"1"

REQUESTS = {
    "Content-Length": (post(b"Content-Length: %b") + b"a", 400),
    "Content-Length of a GET": (head(HOST, b"Content-Length: %b") + b"a", 400),
    "port of Host": (head(b"Host: t:%b"), 400),
    "port of the target": (head(HOST, start=b"GET http://t:%b/ HTTP/1.1"), 400),
    "version": (head(HOST, start=b"GET / HTTP/1.%b"), 400),
    "chunk size": (post(CHUNKED) + b"%b\r\na\r\n0\r\n\r\n", 400),
    "X-Forwarded-Port": (head(HOST, b"X-Forwarded-Port: %b"), 200),
    "X-Forwarded-For": (head(HOST, b"X-Forwarded-For: 1.2.3.4:%b"), 200),
    "Forwarded": (head(HOST, b'Forwarded: for="1.2.3.4:%b";host="t:%b"'), 200),
    "X-Forwarded-Host": (head(HOST, b"X-Forwarded-Host: t:%b"), 200),
    "X-Request-Id": (head(HOST, b"X-Request-Id: %b"), 200),
    "Keep-Alive": (head(HOST, b"Connection: keep-alive", b"Keep-Alive: timeout=%b"), 200),
    "Max-Forwards and Range": (head(HOST, b"Max-Forwards: %b", b"Range: bytes=%b-"), 200),
    "HTTP2-Settings": (head(HOST, b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: %b"), 200),
}


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


@pytest.mark.parametrize("digits", [LONG, ZEROS], ids=["ones", "zeros"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_long_number_in_a_request(name: str, digits: bytes) -> None:
    """Fails without `fields.content_length`: ValueError reached the loop, and the client got no answer."""
    raw, wanted = REQUESTS[name]
    if raw.count(b"%b") == 2:
        digits = digits[-4000:]
    raw = raw.replace(b"%b", digits)
    tap = Wiretap(forwarded_allow_ips=["*"], limit_request_line=16000, access_log_format="json")
    end = raw.index(b"\r\n\r\n") + 2
    for pieces in (
        [raw],
        [raw[:end], raw[end:]],
        [raw[:100], raw[100:]],
        [raw[:3000], raw[3000:]],
        [raw[:-1], raw[-1:]],
    ):
        assert (await tap.ask(pieces)).statuses == [wanted], pieces


@pytest.mark.parametrize("digits", [LONG, ZEROS], ids=["ones", "zeros"])
async def test_a_long_number_in_a_handshake(digits: bytes) -> None:
    opening = (b"Connection: Upgrade", b"Upgrade: websocket")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async with serving(app) as server:
        raw = head(HOST, *opening, b"Sec-WebSocket-Version: " + digits, WEBSOCKET[1])
        assert status(await server.ask(raw)) == 426
        for parameter in (b"server_max_window_bits", b"client_max_window_bits"):
            offer = b"Sec-WebSocket-Extensions: permessage-deflate; %b=%b" % (parameter, digits)
            client = await server.connect()
            await client.send(head(HOST, *opening, *WEBSOCKET, offer))
            accepted = await client.until(b"\r\n\r\n")
            assert status(accepted) == 101
            assert b"permessage-deflate" not in accepted


@pytest.mark.parametrize("digits", [LONG, ZEROS], ids=["ones", "zeros"])
def test_a_long_number_from_a_proxy(digits: bytes) -> None:
    forwarding = Forwarding(Peers(["*"]))
    for told in (
        {b"x-forwarded-port": digits},
        {b"x-forwarded-for": b"1.2.3.4:" + digits},
        {b"x-forwarded-for": b"[::1]:" + digits},
        {b"x-forwarded-for": digits},
        {b"x-forwarded-for": b"1.2.3." + digits},
        {b"x-forwarded-for": b"::" + digits},
        {b"forwarded": b'for="[::1]:%b"' % digits},
        {b"x-forwarded-host": b"t:" + digits},
    ):
        assert forwarding.read(told) == Origin(), told
    for line in (b"PROXY TCP4 1.2.3.4 5.6.7.8 %b 2\r\n", b"PROXY TCP4 %b 5.6.7.8 1 2\r\n"):
        for some in (digits, digits[-70:]):
            with pytest.raises(ClientError):
                ProxyHeader().feed(line % some)


#: Each int() in protocol/, and why it cannot raise.
BOUNDED = {
    "transport/connection": {"name[1]", "peer[1]"},  # the kernel's
    "websocket/departure": {"self._count * elapsed / self._window + 0.5"},
    "peer/forwarded": {"port", "v6_port or v4_port or 0"},  # at most five digits
    "http1/framing": {"digits, 16"},  # at most sixteen
    "semantics/response_head": {"value"},  # the application's; ValueError is caught
    "semantics/status": {"status"},  # the application's, an int
    "peer/proxy_protocol": {"text"},  # at most five
    "semantics/fields": {"value"},  # `content_length`
    "http2/encoder": {"value"},  # of the static table
    "http2/priority": {"match[1]"},  # a digit
    "http2/rates": {"elapsed * FALL_PER_SECOND"},
    "http2/request": {"value"},  # at most LENGTH_DIGITS
    "websocket/deflate": {
        "offer.get(b'server_max_window_bits') or 15",
        "offer[b'client_max_window_bits'] or 15",
    },  # 8 to 15
}


def test_each_int_is_known() -> None:
    """A new one has to be looked at, and a sentence here to say why no client can make it raise."""
    found: dict[str, set[str]] = {}
    for path in Path(aserver.protocol.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "int":
                found.setdefault(
                    path.relative_to(aserver.protocol.__path__[0]).as_posix().removesuffix(".py"), set()
                ).add(", ".join(map(ast.unparse, node.args)))
    assert found == BOUNDED
