"""h2spec's cases, on real connections of a server in this process (h2spec itself is a program in Go)."""

import asyncio

import pytest

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.protocol.http2 import errors, frames
from tests.harness.waiting import PATIENCE, turns_of_the_loop
from tests.protocol.http2.h2spec_rows import ROWS, Due, Row
from tests.protocol.http2.rfc9113_rows import setting
from tests.protocol.serving import Client, Serving, answer, read_all, serving

Frame = tuple[int, int, int, bytes]  # kind, flags, stream, payload

_FRAMES = {
    "head": frames.HEADERS,
    "data": frames.DATA,
    "pong": frames.PING,
    "goaway": frames.GOAWAY,
    "reset": frames.RST_STREAM,
    "acknowledgement of SETTINGS": frames.SETTINGS,
    "settings first": frames.SETTINGS,
}


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when the request is complete."""
    await read_all(receive)
    await answer(send, b"hello, world")


async def eager(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, as many applications do to a GET, though its client has not ended the request."""
    await answer(send, b"hello, world")


async def next_frame(client: Client) -> Frame | None:
    """The next frame, None at the end."""
    try:
        head = await client.exactly(9)
        payload = await client.exactly(int.from_bytes(head[:3], "big"))
    except asyncio.IncompleteReadError:
        return None
    return head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload


def is_due(due: Due, found: Frame) -> bool:
    """Whether an event is the one that is waited for; fails if it is of that kind and wrong."""
    kind, flags, stream, payload = found
    if due.event in ("connection error", "stream error"):
        if kind == frames.GOAWAY:
            return int.from_bytes(payload[4:8], "big") in due.codes
        return due.event == "stream error" and kind == frames.RST_STREAM and code_of(payload) in due.codes
    if due.event == "end of the stream":
        if kind == frames.RST_STREAM:
            return code_of(payload) == errors.NO_ERROR
        return kind in (frames.DATA, frames.HEADERS) and bool(flags & frames.END_STREAM)
    if kind != _FRAMES.get(due.event):
        assert due.event != "settings first", f"the first frame has type {kind}"
        return False
    if kind == frames.HEADERS:
        assert stream == due.stream
    elif kind == frames.DATA:
        assert due.size in (-1, len(payload))
    elif kind == frames.PING:
        assert (flags, payload) == (frames.ACK, due.data)
    elif kind == frames.SETTINGS:
        assert flags == (0 if due.event == "settings first" else frames.ACK)
    elif kind == frames.GOAWAY:
        assert int.from_bytes(payload[4:8], "big") in due.codes
    elif kind == frames.RST_STREAM:
        assert (stream, code_of(payload)) == (due.stream, due.codes[0])
    return True


def code_of(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big")


async def wait(client: Client, due: Due) -> None:
    seen: list[Frame] = []
    while (found := await next_frame(client)) is not None:
        seen.append(found)
        if is_due(due, found):
            return
    assert due.event == "close", f"closed before {due}: {seen}"


async def handshake(client: Client) -> None:
    """h2spec's: both SETTINGS are acknowledged before the case begins."""
    await client.send(frames.PREFACE + setting(frames.INITIAL_WINDOW_SIZE, 65_535))
    await wait(client, Due("settings first"))
    await client.send(frames.SETTINGS_ACK)
    await wait(client, Due("acknowledgement of SETTINGS"))


async def play(server: Serving, row: Row, *, slowly: bool) -> None:
    """One case; `slowly` lets the server answer each step before the next."""
    client = await server.connect()
    if not row.bare:
        await handshake(client)
    for step in row.steps:
        if isinstance(step, Due):
            await wait(client, step)
            if step.event == "connection error":
                await wait(client, Due("close"))
        else:
            await client.send(step)
            await turns_of_the_loop(20 if slowly else 0)
    client.close()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "step by step"])
@pytest.mark.parametrize("app", [hello, eager])
async def test_all_cases(app: ASGIApp, *, slowly: bool) -> None:
    """Each on a connection of its own."""
    failures: list[str] = []
    async with serving(app, h2c=True, http2=True) as server:
        for row in ROWS:
            try:
                async with asyncio.timeout(PATIENCE):
                    await play(server, row, slowly=slowly)
            except (AssertionError, TimeoutError) as error:
                failures.append(f"{row.number} {row.name}: {error!r}")
    assert not failures, "\n".join(failures)


def test_the_table_is_complete() -> None:
    """146 cases of a plain run, one that only a strict run has, and two that only other versions have."""
    assert len(ROWS) == 149
    assert len({row.number for row in ROWS}) == 149
