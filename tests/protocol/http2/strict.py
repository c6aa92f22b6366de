"""A client of HTTP/2 that ends the test at every mistake of the server's: `h2`, an implementation by others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from aserver.asgi import ASGIApp
from tests.harness.waiting import PATIENCE
from tests.protocol.serving import Client, Serving, serving

CLIENT_OPEN = ConnectionState.CLIENT_OPEN

Fields = list[tuple[bytes, bytes]]


@dataclass
class Answer:
    """All that has come on one stream."""

    headers: Fields = field(default_factory=list)
    interim: list[Fields] = field(default_factory=list)
    trailers: Fields = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def status(self) -> int:
        return int(dict(self.headers)[b":status"])

    def field(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)


class StrictClient:
    """One connection. `credit`: give window for what comes, at once."""

    def __init__(self, client: Client, *, credit: bool = True) -> None:
        self.client = client
        self.credit = credit
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        # `h2` takes every GOAWAY for the end, also one that announces it (RFC 9113 section 6.8).
        still_open = {(CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY): (None, CLIENT_OPEN)}
        self.h2.state_machine._transitions = vars(H2ConnectionStateMachine)["_transitions"] | still_open
        self.answers: dict[int, Answer] = {}
        self.order: list[int] = []  # the stream of each DATA frame
        self.goaways: list[tuple[int, int]] = []  # error, last stream
        self.pongs = 0
        self.windows: list[tuple[int, int]] = []
        self.closed = False

    async def begin(self) -> "StrictClient":
        self.h2.initiate_connection()
        await self.flush()
        return self

    async def flush(self) -> None:
        if data := self.h2.data_to_send():
            await self.client.send(data)

    def ask(self, path: str = "/", method: str = "GET", fields: Any = (), *, end: bool = True) -> int:
        """Begin a stream; `flush` sends it."""
        number = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":scheme", "http"), (":authority", "t"), (":path", path), *fields]
        self.h2.send_headers(number, headers, end_stream=end)
        self.answers[number] = Answer()
        return number

    async def get(self, path: str = "/", method: str = "GET", fields: Any = (), body: bytes = b"") -> Answer:
        """One request, and its whole answer."""
        number = self.ask(path, method, fields, end=not body)
        if body:
            self.h2.send_data(number, body, end_stream=True)
        return await self.answer(number)

    async def answer(self, number: int) -> Answer:
        answer = self.answers[number]
        await self.until(lambda: answer.over)
        return answer

    async def until(self, done: Callable[[], object]) -> None:
        """Read until `done`; fails when the server closes before."""
        await self.flush()
        while not done():
            assert not self.closed, f"closed by the server, {self.goaways}"
            await self.read()

    async def read(self) -> None:
        data = await asyncio.wait_for(self.client.reader.read(65536), PATIENCE)
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            self._take(event)
        await self.flush()

    async def until_closed(self) -> None:
        await self.flush()
        while not self.closed:
            await self.read()

    def _take(self, event: Any) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaways.append((int(event.error_code or 0), event.last_stream_id or 0))
        elif isinstance(event, PingAckReceived):
            self.pongs += 1
        elif isinstance(event, WindowUpdated):
            self.windows.append((event.stream_id, event.delta))
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        if isinstance(event, ResponseReceived):
            answer.headers = event.headers
        elif isinstance(event, InformationalResponseReceived):
            answer.interim.append(event.headers)
        elif isinstance(event, TrailersReceived):
            answer.trailers = event.headers
        elif isinstance(event, DataReceived):
            answer.body += event.data
            self.order.append(event.stream_id)
            if self.credit:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code)


async def connect(server: Serving, *, credit: bool = True) -> StrictClient:
    return await StrictClient(await server.connect(), credit=credit).begin()


@asynccontextmanager
async def speaking(app: ASGIApp, *, credit: bool = True, **values: Any) -> AsyncIterator[tuple[Serving, StrictClient]]:
    """An application served, and a client of it."""
    async with serving(app, h2c=True, http2=True, **values) as server:
        yield server, await connect(server, credit=credit)
