"""The connection or stream of a WebSocket: all that differs between the versions of HTTP.

Runs in the worker's loop. Over HTTP/1 the tunnel is the whole connection (`transport.Connection`), and the answer is
101 (`http1.answers`). Over HTTP/2 it is a stream (RFC 8441, `http2.tunnel`).
"""

from typing import Protocol

from aserver.metrics.page import Awaited
from aserver.protocol.context import Context
from aserver.protocol.semantics.response import Response
from aserver.protocol.semantics.response_head import Heads, Pairs
from aserver.protocol.transport.connection import Handler
from aserver.protocol.transport.read_gate import ReadGate
from aserver.protocol.transport.writer import Writer


class Tunnel(Protocol):
    """Carries bytes in both directions, and calls its `Handler`."""

    context: Context
    writer: Writer
    gate: ReadGate
    deadline: float  # `Handler.expire` is called after it
    awaited: Awaited  # the reason of `deadline`; to be set before it

    @property
    def open(self) -> bool:
        """Whether the tunnel's end has not been decided."""

    def hand_over(self, handler: Handler) -> None:
        """Give the tunnel its handler."""

    async def until_writable(self) -> None:
        """Wait while the handler is `write_paused`, or until the client is gone."""

    def close(self) -> None:
        """Close when all written bytes were sent."""

    def linger(self) -> None:
        """Close so that the client can read the last bytes even if it is still sending."""

    def abort(self) -> None:
        """End at once."""


class OpeningAnswer(Protocol):
    """Sends the HTTP response that opens or refuses a WebSocket."""

    heads: Heads
    status: int  # of the response that opens the WebSocket

    def accept(self, fields: Pairs, headers: Pairs) -> None:
        """Send the response that opens it, with `fields`. `headers` are those that the application has set."""

    def send_head(self, response: Response, body: bytes) -> None:
        """Send the head, and the first piece of the body; it is the last piece if the response is DONE."""

    def send_data(self, response: Response, body: bytes) -> None:
        """Send the next piece of the body; it is the last if the response is DONE."""
