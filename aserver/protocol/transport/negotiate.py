"""New connections, and the choice between HTTP/1 and HTTP/2 on them: by ALPN over TLS, else by the first bytes.

Runs in the worker's loop. There is a choice only where HTTP/2 is possible: over TLS if `http2` is on, and on `h2c://`
addresses. Other connections begin with HTTP/1 at once. The choice is made with the first bytes. Then the connection
gets the handler of that version (`Connection.hand_over`).
"""

from collections.abc import Callable
from typing import Any, Final

from aserver.protocol.context import Context
from aserver.protocol.transport.connection import Connection, Handler
from aserver.tls import HTTP2

#: The bytes with which a client of HTTP/2 begins (RFC 9113 section 3.4). No request of HTTP/1 begins so.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class ConnectionFactory:
    """Makes the connections of an address, and by `begin` the handler of each."""

    __slots__ = ("_begin", "_context", "_scheme", "_server", "_tls")

    def __init__(
        self,
        context: Context,
        begin: Callable[[Connection], Any],
        *,
        scheme: str,
        tls: bool,
        server: tuple[str, int | None] | None,
    ) -> None:
        self._context = context
        self._begin = begin
        self._scheme = scheme
        self._tls = tls
        self._server = server

    def __call__(self) -> Connection:
        """Make a connection, for a transport that it does not have yet."""
        link = Connection(self._context, scheme=self._scheme, tls=self._tls, server=self._server)
        link.speak(self._begin(link))
        return link


class Negotiation(Handler):
    """The handler of a connection until its first bytes have come."""

    __slots__ = ("_begin", "_link", "_seen")

    def __init__(self, link: Connection, begin: Callable[[Connection, bool], Any]) -> None:
        self._link = link
        self._begin = begin  # makes the handler of HTTP/2 (True) or HTTP/1
        self._seen = b""
        self.write_paused = False

    def data_received(self, data: bytes) -> None:
        """Choose, and give the bytes to the handler. While they may become a preface, wait for more."""
        link = self._link
        if self._seen:
            data = self._seen + data
        if link.tls:
            http2 = link.transport.get_extra_info("ssl_object").selected_alpn_protocol() == HTTP2
        elif data != PREFACE and PREFACE.startswith(data):
            self._seen = data
            return
        else:
            http2 = data.startswith(PREFACE)
        awaited, deadline = link.awaited, link.deadline
        handler = self._begin(link, http2)
        link.hand_over(handler)
        link.awaited, link.deadline = awaited, deadline  # the deadline of the first request stays
        handler.data_received(data)

    def expire(self) -> None:
        """Close, because no request came in time."""
        self._link.close()

    @property
    def idle(self) -> bool:
        """Whether no request is under way, also none half received."""
        return not self._seen
