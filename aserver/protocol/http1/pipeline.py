"""Requests that were read before the response to the request before them was complete (RFC 9112 section 9.3.2).

Runs in the worker's loop. A connection has a `Pipeline` only while a request, or the refusal of one, waits. It must
never hold more than `PIPELINE_LIMIT` requests.
"""

from collections.abc import Callable
from typing import Final

from aserver.errors import ClientError
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.http1.reader import RequestReader
from aserver.protocol.transport.connection import Connection
from aserver.protocol.transport.read_gate import Pause

#: Requests that wait for an earlier response; with so many, reading pauses until half of them are begun.
PIPELINE_LIMIT: Final = 16


class Pipeline:
    """The requests behind the current request, in order, and the refusal of the last. `read_on` goes on reading."""

    __slots__ = ("_link", "_read_on", "_reader", "exchanges", "refusal")

    def __init__(self, link: Connection, reader: RequestReader, read_on: Callable[[], None]) -> None:
        self.exchanges: list[Exchange] = []
        self._link = link
        self._reader = reader
        self._read_on = read_on
        #: To be answered behind the exchanges, with the exchange whose body was bad, if its head was good.
        self.refusal: tuple[ClientError, Exchange | None] | None = None

    def add(self, exchange: Exchange) -> None:
        """Have a request wait; pause reading if it is the last that may."""
        self.exchanges.append(exchange)
        if len(self.exchanges) == PIPELINE_LIMIT:
            self._reader.paused = True
            self._link.gate.pause(Pause.PIPELINE)

    def refuse(self, error: ClientError, exchange: Exchange | None) -> None:
        """Have a refusal wait; `exchange` is the request of which it is, if its head was good."""
        if exchange in self.exchanges:
            self.exchanges.pop()  # only the request read last can be incomplete
        self.refusal = error, exchange

    def pop(self) -> Exchange:
        """Return the request whose turn has come; its answer is written with those that follow."""
        exchanges, link = self.exchanges, self._link
        exchange = exchanges.pop(0)
        if self._reader.paused and len(exchanges) == PIPELINE_LIMIT // 2:
            # Not from here: this may be a call of the reader's, or deep in an application.
            link.context.loop.call_soon(self._make_room, context=link.context.variables)
        if link.writer.held is None:
            link.writer.hold(pipelined=True)
        return exchange

    def _make_room(self) -> None:
        self._reader.paused = False
        self._read_on()
