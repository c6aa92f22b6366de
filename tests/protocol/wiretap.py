"""A connection without a network: bytes in, pieces as they are given, and what the server wrote and did."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.protocol.service import Service
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.serving import service_of

#: Turns of the loop after each piece: enough for an app that reads a body and answers, several times.
TURNS = 12


#: What uvloop reads at once.
READ = 256 * 1024


def filled(unit: bytes, size: int = READ) -> bytes:
    return unit * (size // len(unit))


class Tap(asyncio.Transport):
    """A transport that keeps what is written, and holds a connection to account: nothing is written after the end."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.on_write: Callable[[], object] = lambda: None
        self.written = b""
        self.closed = False
        self.half_closed = False
        self.reading = True  # as far as the connection wants it

    def plug(self, service: Service) -> Self:
        """Become a new client of `service`."""
        self.service = service
        self.protocol = service.protocol_factory()()
        self.protocol.connection_made(self)
        return self

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 5), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        assert not self.half_closed, "written after the end of the stream"
        self.written += data
        self.on_write()

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def get_write_buffer_size(self) -> int:
        return 0


class Written(Tap):
    """Keeps each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        self.writes.append(bytes(data))


class Lenient(Tap):
    """Drops what is written after the end, as real transports do, and else too."""

    def write(self, data: bytes | bytearray | memoryview) -> None: ...


class Writes:
    """In place of a real transport: it notes the size of each write, and is else the transport itself."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.sizes: list[int] = []

    def write(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@dataclass
class Outcome:
    """What one connection came to. `called` has what the application was asked, `answers` what was written."""

    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    called: list[bytes] = field(default_factory=list)
    open: bool = True
    written: bytes = b""


class Wiretap:
    """Connections to an application that answers with what it was asked."""

    def __init__(self, app: ASGIApp | None = None, **settings: Any) -> None:
        self.service = service_of(app or self._app, **settings)
        self._called: list[bytes] = []

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"-")
        line = b"%s %s?%s %s %s" % (
            scope["method"].encode(),
            scope["raw_path"],
            scope["query_string"],
            host,
            scope["http_version"].encode(),
        )
        self._called.append(line)
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        answer = line + b" " + body
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]}
        )
        await send({"type": "http.response.body", "body": answer})

    async def ask(self, pieces: Iterable[bytes]) -> Outcome:
        """Feed the pieces, with turns of the loop between them."""
        self._called = []
        tap = Tap().plug(self.service)
        connection = tap.protocol
        for piece in pieces:
            if piece and not tap.closed:
                connection.data_received(piece)
            await turns_of_the_loop(TURNS if self.service.active else 1)
        while connection.handler.reader.unread or (
            self.service.active and not (connection.handler.receiving is not None)
        ):
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # answers are written at the end of the turn they are given in
        outcome = Outcome(called=self._called, open=not (tap.closed or tap.half_closed), written=tap.written)
        connection.connection_lost(None)
        while self.service.active:
            await asyncio.sleep(0)
        rest = tap.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            outcome.statuses.append(int(head[9:12]))
            head_only = outcome.statuses[-1] < 200 or (
                len(outcome.called) >= len(outcome.statuses)
                and outcome.called[len(outcome.statuses) - 1].startswith(b"HEAD ")
            )
            length = 0 if head_only else int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            outcome.bodies.append(rest[:length])
            rest = rest[length:]
        return outcome
