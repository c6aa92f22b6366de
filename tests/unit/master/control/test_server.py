"""Clients of the control socket, which may send anything, or nothing."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from aserver.master.control import server as control
from aserver.master.control.orders import Order, OrderRefused
from aserver.master.control.server import LONGEST_LINE, MOST_CLIENTS, ControlServer
from aserver.master.core.events import Say
from aserver.master.journal import Journal
from tests.harness import PATIENCE, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop


class Stage:
    """A server on an abstract name; `obeyed` are the orders, and `later` the replies that are held back."""

    def __init__(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind("")  # the kernel chooses an abstract name
        self.listener.listen()
        self.listener.setblocking(False)
        self.journal = Journal()
        self.obeyed: list[Order] = []
        self.later: list[Callable[[object], None]] = []
        self.server = ControlServer(self.listener, self.answer, self.journal)
        self.talks: list[Talk] = []

    def answer(self, order: Order, reply: Callable[[object], None]) -> None:
        self.obeyed.append(order)
        if order.command == "recycle":
            raise OrderRefused("not that one")
        if order.command == "stacks":
            self.later.append(reply)
        else:
            reply({"done": order.command})

    async def connect(self) -> "Talk":
        reader, writer = await asyncio.open_unix_connection(self.listener.getsockname(), limit=1 << 20)
        self.talks.append(Talk(reader, writer))
        return self.talks[-1]

    async def adopt(self) -> "Talk":
        """A child of the server's process."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.server.adopt(ours)
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        self.talks.append(Talk(reader, writer))
        return self.talks[-1]

    def happen(self, number: int = 1) -> None:
        for _ in range(number):
            self.journal.say(Say("debug", "x" * 500, event="worker.fork"))


class Talk:
    """A client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, **order: object) -> None:
        self.writer.write(json.dumps(order).encode() + b"\n")

    async def hear(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            try:
                line = await self.reader.readline()
            except ConnectionResetError:  # it hung up on more than it has read
                return None
        return json.loads(line) if line else None


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(control, "SHARE", 0)
    monkeypatch.setattr(control, "SHARE_OF_CHILD", 0)
    stage = Stage()
    yield stage
    stage.server.close()
    stage.listener.close()
    for talk in stage.talks:
        talk.writer.close()
        with suppress(OSError):
            await talk.writer.wait_closed()


async def test_a_line_in_a_line_out(stage: Stage) -> None:
    """In order, also if they come at once. Fails with orders that are obeyed before the last answer is out."""
    talk = await stage.connect()
    talk.send(command="reload")
    talk.send(command="stacks", slot=1)
    talk.send(command="recycle", slot=2)
    assert await talk.hear() == {"done": "reload"}
    await eventually(lambda: stage.later)
    assert [order.command for order in stage.obeyed] == ["reload", "stacks"]
    stage.later[0]({"stacks": "..."})
    assert await talk.hear() == {"stacks": "..."}
    assert await talk.hear() == {"error": "not that one"}


@pytest.mark.parametrize(
    "garbage",
    [b"\n", b"{}\n", b"GET / HTTP/1.1\r\n", b"\xff\xfe\n", b'{"command":"reload","slot":-1}\n', b"[" * 3000 + b"\n"],
    ids=range(6),
)
async def test_garbage_is_answered_and_changes_nothing(stage: Stage, garbage: bytes) -> None:
    """The connection goes on. Fails without the except for what msgspec raises."""
    talk = await stage.connect()
    talk.writer.write(garbage)
    assert list(await talk.hear()) == ["error"]
    talk.send(command="reopen")
    assert await talk.hear() == {"done": "reopen"}
    assert len(stage.obeyed) == 1


async def test_a_child_may_look_and_order_nothing(stage: Stage) -> None:
    """One connection has the records and the replies. Fails without LOOKS: the application may trace that child."""
    child = await stage.adopt()
    child.send(command="events", follow=True)
    for command in ("reload", "upgrade", "stop", "scale", "recycle", "reopen", "stacks", "requests"):
        child.send(command=command, slot=1)
        assert "may only look" in (await child.hear())["error"]
    child.send(command="status")
    assert await child.hear() == {"done": "status"}
    stage.happen()
    assert (await child.hear())["record"]["number"] == 1
    assert [order.command for order in stage.obeyed] == ["status"]


async def test_a_line_without_an_end_is_hung_up_on(stage: Stage) -> None:
    """Fails without LONGEST_LINE: the master would keep all that comes."""
    talk = await stage.connect()
    talk.writer.write(b"x" * (LONGEST_LINE * 3))
    while (said := await talk.hear()) is not None:
        assert str(LONGEST_LINE) in said["error"]


async def test_clients_are_bounded_and_a_place_becomes_free(stage: Stage) -> None:
    """Fails without MOST_CLIENTS, or with places that are not given back."""
    talks = [await stage.connect() for _ in range(MOST_CLIENTS)]
    assert str(MOST_CLIENTS) in (await (await stage.connect()).hear())["error"]
    talks[0].writer.close()
    talks[1].send(command="reopen")
    await talks[1].hear()

    async def served() -> bool:
        talk = await stage.connect()
        talk.send(command="reopen")
        return bool((await talk.hear()).get("done"))

    async with asyncio.timeout(PATIENCE):
        while not await served():
            await asyncio.sleep(0.01)


async def test_a_client_that_stalls_is_let_go(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line, and nothing at all. Fails without `_await_client`."""
    monkeypatch.setattr(control, "PATIENCE", 0.05)
    silent, half = await stage.connect(), await stage.connect()
    half.writer.write(b'{"comm')
    assert await silent.hear() is None
    assert await half.hear() is None


async def test_a_client_has_its_share_of_the_masters_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of orders is obeyed slowly, and others are heard meanwhile. Fails without the pause after an order."""
    monkeypatch.setattr(control, "SHARE", 1e9)
    flood = await stage.connect()
    for _ in range(50):
        flood.send(command="reopen")
    assert await flood.hear() == {"done": "reopen"}
    talk = await stage.connect()
    talk.send(command="scale", to=3)
    assert await talk.hear() == {"done": "scale"}
    assert [order.command for order in stage.obeyed] == ["reopen", "scale"]


async def test_a_client_that_has_gone_holds_no_place(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while it is paused. Fails without `close_if_gone`: a program that asks ten times a second is refused."""
    monkeypatch.setattr(control, "SHARE", 1e9)
    for _ in range(MOST_CLIENTS + 1):
        talk = await stage.connect()
        talk.send(command="reopen")
        assert await talk.hear() == {"done": "reopen"}
        talk.writer.close()


async def test_the_records_that_are_kept_and_those_that_come(stage: Stage) -> None:
    """Fails without `pump` at a new record, and with `after` left out of the look."""
    stage.happen(5)
    talk = await stage.connect()
    talk.send(command="events", after=3)
    assert [(await talk.hear())["record"]["number"] for _ in range(2)] == [4, 5]
    assert await talk.hear() == {"last": 5}
    talk.send(command="reload", follow=True)
    assert await talk.hear() == {"done": "reload"}
    stage.happen()
    assert (await talk.hear())["record"]["number"] == 6


async def test_a_follower_that_does_not_read_costs_nothing(stage: Stage) -> None:
    """It misses records that are not kept any more, and reads on. Fails with all records kept for each client."""
    talk = await stage.connect()
    talk.send(command="events", follow=True)
    await eventually(lambda: stage.journal.followers and not stage.obeyed)
    talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(20):
        stage.happen(1000)
        await asyncio.sleep(0)
    talk.writer.transport.resume_reading()  # type: ignore[attr-defined]
    numbers = [0]
    while numbers[-1] < 20_000:
        numbers.append((await talk.hear())["record"]["number"])
    assert len(numbers) < 5000


async def test_at_the_end_a_follower_gets_the_last_records(stage: Stage) -> None:
    """Fails with a plain close: the caller of a stop would not see that the workers have left."""
    talk = await stage.connect()
    talk.send(command="stop", follow=True)
    assert await talk.hear() == {"done": "stop"}
    stage.happen(3)
    stage.server.close()
    assert [(await talk.hear())["record"]["number"] for _ in range(3)] == [1, 2, 3]
    assert await talk.hear() is None
    stage.server = ControlServer(stage.listener, stage.answer, stage.journal)


CLIENT = """
import os, socket
os.setuid({})
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect({!r})
    print(sock.recv(999).decode())
"""


async def test_trap_92_processes_of_the_server_and_other_users_are_refused(stage: Stage) -> None:
    """A child of this process stands for a worker. Fails without `refuse`."""
    name = stage.listener.getsockname()

    def said(uid: int) -> str:
        command = [sys.executable, "-c", CLIENT.format(uid, name)]
        return str(json.loads(subprocess.check_output(command, timeout=PATIENCE))["error"])

    assert "one of this server's own" in await asyncio.to_thread(said, os.geteuid())
    if os.geteuid() == 0:
        assert "uid 65534 may not control this server" in await asyncio.to_thread(said, 65534)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not control.refuse(ours), "this process itself"
    assert not stage.obeyed
