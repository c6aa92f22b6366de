"""The rows of RFC 9113, whole and cut at every byte, and on a real connection."""

import asyncio

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.http2 import frames
from tests.harness.waiting import PATIENCE
from tests.protocol.http2.rfc9113_rows import ROWS, Row
from tests.protocol.http2.server import PlainServer
from tests.protocol.http2.wire import CODES, take_apart, told
from tests.protocol.serving import Serving, answer, serving


def outcome(pieces: list[bytes]) -> str:
    server = PlainServer(most_streams=2)
    for piece in pieces:
        server.feed(piece)
    # Acknowledgement of the opening, and windows, belong to every connection.
    seen = [each for each in told(server.sent) if not each.startswith("window")]
    if seen[:1] == ["settings ack"]:
        del seen[0]
    if server.fault is not None:
        seen.append(f"goaway {CODES[server.fault.code]}")
    return ", ".join(seen)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section} {row.name}")
def test_row(row: Row) -> None:
    raw = row.opening + row.raw
    assert outcome([raw]) == row.due
    for cut in range(max(len(row.opening) - 10, 1), len(raw)):
        assert outcome([raw[:cut], raw[cut:]]) == row.due
    assert outcome([raw[at : at + 1] for at in range(len(raw))]) == row.due


#: Rows that end otherwise: HTTP/1.1 is spoken there too, more streams may be open, no answer is before the reset.
ELSEWHERE = {
    "another preface",
    "preface spoilt at its end",
    "more streams than allowed",
    "RST_STREAM after both ends",
}
LAST = b"theLast!"


async def in_its_time(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers later, if its client is there."""
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    await asyncio.sleep(0)
    if message["type"] == "http.request":
        await answer(send)


async def observe(server: Serving, row: Row) -> None:
    """A fault of a stream may be answered as one of the connection, and the answer may come before it or not at all."""
    client = await server.connect()
    *_, last = row.due.split(", ")
    faulty = last.startswith(("reset", "goaway"))
    await client.send(row.opening + row.raw + (b"" if faulty else frames.ping(LAST, ack=False)))
    seen: list[str] = []
    raw = b""
    while not (last.split()[-1] in seen if faulty else last in seen and f"pong {LAST.decode()}" in seen):
        piece = await asyncio.wait_for(client.reader.read(65_536), PATIENCE)
        raw += piece
        whole = _whole(raw)
        seen = told(whole)
        for kind, _, _, payload in take_apart(whole):
            if kind in (frames.RST_STREAM, frames.GOAWAY):
                seen.append(CODES[int.from_bytes(payload[-4:] if kind == frames.RST_STREAM else payload[4:8], "big")])
        assert piece or last.split()[-1] in seen, (row, seen)


def _whole(raw: bytes) -> bytes:
    """Without the frame at the end that is not complete."""
    at = 0
    while len(raw) - at >= 9 and (end := at + 9 + int.from_bytes(raw[at : at + 3], "big")) <= len(raw):
        at = end
    return raw[:at]


async def test_rows_on_a_connection() -> None:
    async with serving(in_its_time, h2c=True, http2=True) as server:
        for row in ROWS:
            if row.name not in ELSEWHERE:
                await observe(server, row)
