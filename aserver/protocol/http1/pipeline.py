"""Pipelining: requests that wait for the responses to requests before them (RFC 9112 section 9.3.2).

Runs in the worker's loop. A connection has a `Pipeline` only while a request or a refusal waits. It must never hold
more than `PIPELINE_LIMIT` requests.
"""

from collections.abc import Callable
from typing import Final

from aserver.errors import ClientError
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.http1.reader import RequestReader
from aserver.protocol.transport.connection import Connection
from aserver.protocol.transport.read_gate import Pause

#: Reading pauses when so many requests wait, until half of them were begun.
PIPELINE_LIMIT: Final = 16


class Pipeline:
    """The requests behind the current request, in order, and the refusal of the last. `read_on` resumes reading."""

    __slots__ = ("_link", "_read_on", "_reader", "exchanges", "refusal")

    def __init__(self, link: Connection, reader: RequestReader, read_on: Callable[[], None]) -> None:
        self.exchanges: list[Exchange] = []
        self._link = link
        self._reader = reader
        self._read_on = read_on
        #: The error to be answered after the exchanges, and its exchange; None if not even the head was good.
        self.refusal: tuple[ClientError, Exchange | None] | None = None

    def add(self, exchange: Exchange) -> None:
        """Let a request wait; pause reading if no other may."""
        self.exchanges.append(exchange)
        if len(self.exchanges) == PIPELINE_LIMIT:
            self._reader.paused = True
            self._link.gate.pause(Pause.PIPELINE)

    def refuse(self, error: ClientError, exchange: Exchange | None) -> None:
        """Let a refusal wait. `exchange` is the refused request, or None if its head was bad."""
        if exchange in self.exchanges:
            self.exchanges.pop()  # it is the last: only the last request can be incomplete
        self.refusal = error, exchange

    def pop(self) -> Exchange:
        """Return the next request. Its answer is written together with those that follow."""
        exchanges, link = self.exchanges, self._link
        exchange = exchanges.pop(0)
        if self._reader.paused and len(exchanges) == PIPELINE_LIMIT // 2:
            # In the next turn: this may be inside a call of the reader, or the application's `send()`.
            link.context.loop.call_soon(self._make_room, context=link.context.variables)
        if link.writer.held is None:
            link.writer.hold(pipelined=True)
        return exchange

    def _make_room(self) -> None:
        self._reader.paused = False
        self._read_on()
