"""The limit for other servers: uvloop and httptools with a fixed answer, without ASGI.

It does the least that a Python server on these two must do: the loop, the parser, a callback and a write per response.

`limit.py APP HOST PORT [CERTFILE KEYFILE]` answers as the app APP would. The answer is the same for every path. It has
the headers that a server must send, also a date.
"""

import asyncio
import ssl
import sys
from email.utils import formatdate
from typing import cast

import httptools
import uvloop

BODIES = {"hello:app": b"Hello, world!", "bodies:upload": b"65536", "bodies:blob": bytes(range(256)) * 4096}


class Answer(asyncio.Protocol):
    """A connection: each request gets the fixed answer."""

    __slots__ = ("parser", "transport")
    response = b""
    last_response = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted, because uvloop's transports are no subclass of asyncio.Transport.
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self.parser.should_keep_alive():
            self.transport.write(self.response)
        else:
            self.transport.write(self.last_response)
            self.transport.close()


async def main(app: str, host: str, port: int, certificate: tuple[str, ...]) -> None:
    """Serve until killed."""
    body = BODIES[app]
    date = formatdate(usegmt=True).encode()
    head = b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n" % (date, len(body))
    Answer.response = head + b"\r\n" + body
    Answer.last_response = head + b"connection: close\r\n\r\n" + body
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    server = await asyncio.get_running_loop().create_server(Answer, host, port, ssl=context, backlog=2048)
    await server.serve_forever()


uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), tuple(sys.argv[4:])))
