"""An application served natively (`http1/plain.pyx`) and as without a compiler, so that both can be compared."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.service import Service
from tests.protocol.serving import service_of
from tests.protocol.wiretap import TURNS, Tap

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Side:
    """A service with or without the native handler, and what came of it."""

    def __init__(self, app: App, *, native: bool, **values: Any) -> None:
        self.records: list[tuple[Any, ...]] = []
        self.scopes: list[Scope] = []
        self.app = app
        self.service: Service = service_of(self._call, access=self._log, date_header=False, **values)
        if not native:
            self.service.plain = None
        self.native = native

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append({**scope, "headers": list(scope["headers"])})
        await self.app(scope, receive, send)

    def _log(self, record: Any) -> None:
        names = ("client", "method", "target", "version", "status", "sent", "headers", "response_headers", "request_id")
        self.records.append(tuple(getattr(record, name, None) for name in names))

    async def ask(self, *pieces: bytes, leave: bool = True, turns: int = TURNS) -> tuple[Any, ...]:
        self.records.clear()
        self.scopes.clear()
        tap = Tap().plug(self.service)
        for piece in pieces:
            if not tap.closed:
                tap.protocol.data_received(piece)
            for _ in range(turns):
                await asyncio.sleep(0)
        if plain := self.service.plain:
            plain.renew()  # as the sweep does, which alone asks for deadlines
        end = (tap.closed, tap.half_closed, tap.protocol.awaited)
        if leave:
            tap.protocol.connection_lost(None)
            while self.service.active:
                await asyncio.sleep(0)
        received = self.service.context.meter.received
        return [*self.scopes], [*self.records], tap.written, end, self.service.requests, received


async def both(app: App, *pieces: bytes, **values: Any) -> tuple[Any, ...]:
    """What comes of it, which is the same on both sides."""
    native, ordinary = (Side(app, native=native, **values) for native in (True, False))
    outcome = await native.ask(*pieces)
    assert outcome == await ordinary.ask(*pieces)
    return outcome


def message(kind: str, **values: Any) -> Any:
    return {"type": f"http.response.{kind}", **values}


def script(*messages: Any) -> App:
    """An application that sends these, whatever it hears."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        for each in messages:
            if callable(each):
                await each(receive, send)
            else:
                await send(each)

    return app


async def exit_process(*_: Any) -> None:
    raise SystemExit(1)


async def cancel_itself(*_: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)
