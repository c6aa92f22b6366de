"""Answers that the server gives by itself: to a request that cannot be served, and 101 to an offer of a WebSocket.

Runs in the worker's loop.
"""

import logging
from time import monotonic
from typing import Final

from aserver.errors import ClientError
from aserver.protocol.application.access_record import refusal
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.http1.encoder import Encoder
from aserver.protocol.http1.head import RequestHead
from aserver.protocol.semantics.response import Response
from aserver.protocol.semantics.response_head import Pairs
from aserver.protocol.transport.connection import Connection
from aserver.protocol.transport.writer import Writer

log: Final = logging.getLogger("aserver.error")


def answer_refusal(
    link: Connection,
    encoder: Encoder,
    tasks: Tasks,
    error: ClientError,
    exchange: Exchange | None,
    *,
    head: RequestHead | None,
) -> None:
    """Answer a request with an error, and end its connection.

    `exchange` is the request, or None if its head was bad: then `head` has the part that was read.
    """
    log.debug("%s:%s is answered %d: %s", *(link.client or ("a client", "-")), error.status, error.reason)
    line = (None if head is None else head.line) or ("", b"", "")
    head_only = line[0] == "HEAD" if exchange is None else exchange.head_only
    response = Response(encoder.heads, True, head_only, False)
    link.writer.write_soon(encoder.first(response, response.answer(error.status)))
    if tasks.observed:
        fields = [] if head is None else head.fields
        tasks.record(refusal(error.status, exchange, client=link.client, line=line, headers=fields, now=monotonic()))
    link.linger()


class UpgradeAnswer:
    """See `websocket.tunnel.OpeningAnswer`."""

    __slots__ = ("_encoder", "_writer", "heads", "status")

    def __init__(self, encoder: Encoder, writer: Writer) -> None:
        self._encoder = encoder
        self._writer = writer
        self.heads = encoder.heads
        self.status = 101

    def accept(self, fields: Pairs, headers: Pairs) -> None:
        """Send the 101 response."""
        self._writer.write(self._encoder.switch(fields, headers))

    def send_head(self, response: Response, body: bytes) -> None:
        """Send the head of a refusal with the first piece of its body."""
        self._write(self._encoder.first(response, body))

    def send_data(self, response: Response, body: bytes) -> None:
        """Send the next piece of a refusal's body."""
        self._write(self._encoder.piece(response, body))

    def _write(self, data: bytes | list[bytes]) -> None:
        if isinstance(data, bytes):
            self._writer.write(data)
        else:
            self._writer.write_pieces(data)
