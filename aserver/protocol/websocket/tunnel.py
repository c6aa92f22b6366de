"""The connection of a WebSocket, or its stream: all of it that differs between the versions of HTTP.

Runs in the worker's loop. HTTP/1 gives its whole connection (`transport.Connection`) and answers the offer with 101
(`http1.answers`); a stream of HTTP/2 can be a tunnel as well (RFC 8441).
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
    deadline: float  # of `Handler.expire`
    awaited: Awaited  # before `deadline`

    @property
    def open(self) -> bool:
        """Whether its end has not been decided."""

    def hand_over(self, handler: Handler) -> None:
        """Call this handler from now on."""

    async def until_writable(self) -> None:
        """Wait until the client has read enough, or is gone."""

    def close(self) -> None:
        """Close when all that was written has left."""

    def finish(self) -> None:
        """Close so that the client can read the last frame even if it is still sending."""

    def linger(self) -> None:
        """Close so that the client can read an HTTP answer even if it is still sending."""

    def abort(self) -> None:
        """End at once."""


class OpeningAnswer(Protocol):
    """Sends the HTTP response that opens or refuses a WebSocket."""

    heads: Heads
    status: int  # of the response that opens it

    def accept(self, fields: Pairs, headers: Pairs) -> None:
        """Send the response that opens it; `headers` are those of `fields` that the application set."""

    def send_head(self, response: Response, body: bytes) -> None:
        """Send the head with the first piece of the body, or all of it if the response is complete."""

    def send_data(self, response: Response, body: bytes) -> None:
        """Send the next piece of the body, the last if the response is complete."""
