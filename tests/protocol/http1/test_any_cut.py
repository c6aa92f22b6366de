"""Any bytes behind any request mean the same wherever the network cuts them: a table of both, and all cuts."""

import asyncio
import os
import re
from collections.abc import Iterator

import pytest

from aserver.asgi import Receive, Scope, Send
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.http1.framing_rows import BEHIND, CHUNKED, H2_PREFACE, HOST, PLAIN, WEBSOCKET, head, post
from tests.protocol.serving import answer, read_all, service_of
from tests.protocol.websocket.peers import TEXT, frame
from tests.protocol.wiretap import Outcome, Tap, Wiretap

#: What comes first: read in each of the ways that the reader has.
FIRST = {
    "nothing": b"",
    "a plain GET": PLAIN,
    "two GETs": PLAIN + PLAIN,
    "a GET that closes": head(HOST, b"Connection: close"),
    "a GET that Proxy-Connection closes": head(HOST, b"Proxy-Connection: close"),
    "1.0, kept alive": head(b"Connection: keep-alive", start=b"GET / HTTP/1.0"),
    "a body": post(b"Content-Length: 3") + b"a\r\n",
    "chunks": post(CHUNKED) + b"3 ; a=b\r\na\r\n\r\n0\r\nConnection: close\r\n\r\n",
    "an offer of h2c": head(HOST, b"Connection: Upgrade", b"Upgrade: h2c"),
    "half an offer of a WebSocket": head(HOST, b"Upgrade: websocket", b"Proxy-Connection: Upgrade", *WEBSOCKET),
}

#: Of the others, every fifth place is enough: most of them are read part by part, where a cut is seldom seen.
EVERYWHERE = ("nothing", "a plain GET", "a GET that Proxy-Connection closes", "half an offer of a WebSocket")


def cuts(name: str, raw: bytes) -> Iterator[list[bytes]]:
    """In two behind the first request, in three also at its end, and byte by byte; less of what is long."""
    border = len(FIRST[name])
    step = 97 if len(raw) > 600 else 1 if name in EVERYWHERE or os.environ.get("TEST_LONG") else 5
    for position in sorted(
        {*range(max(1, border - 2), len(raw), step), *range(max(1, border), min(border + 3, len(raw)))}
    ):
        yield [raw[:position], raw[position:]]
        if border < position and position % 3 == 0:
            yield [raw[:border], raw[border:position], raw[position:]]
    yield [raw[index : index + 1] for index in range(len(raw))]


def verdict(outcome: Outcome) -> tuple[object, ...]:
    """What the client sees; bodies say which request they answer.

    Not what the application was called for: a request whose head comes before its bad body is begun, another is not.
    """
    return outcome.statuses, outcome.bodies, outcome.open


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


@pytest.mark.parametrize("name", FIRST)
async def test_one_meaning_whatever_the_cuts(name: str) -> None:
    """Fails where the parser, fed several requests at once, is asked for what only the first one was looked at for.

    `PRI * HTTP/2.0` behind a plain GET was swallowed when both came in one piece, and answered with 505 when not.
    """
    tap = Wiretap()
    first = FIRST[name]
    for behind in BEHIND:
        raw = first + behind
        whole = verdict(await tap.ask([raw]))
        for pieces in cuts(name, raw):
            cut = verdict(await tap.ask(pieces))
            assert cut == whole, f"{pieces} and the same in one piece"


@pytest.mark.parametrize("name", FIRST)
async def test_the_preface_of_http_2_is_refused_behind_all_that_stays_open(name: str) -> None:
    raw = FIRST[name]
    statuses = (await Wiretap().ask([raw])).statuses
    outcome = await Wiretap().ask([raw + H2_PREFACE[:18]])
    assert outcome.statuses == (statuses if name == "a GET that closes" else [*statuses, 505])
    assert not outcome.open


@pytest.mark.parametrize("first", [b"", PLAIN, post(b"Content-Length: 1") + b"a"])
@pytest.mark.parametrize(
    "refused",
    [
        head(b"Host: a b", start=b"HEAD / HTTP/1.1"),
        head(HOST, b"A : b", start=b"HEAD / HTTP/1.1"),
        head(HOST, CHUNKED, start=b"HEAD / HTTP/1.1") + b"1\r\nab",
        head(HOST, CHUNKED, start=b"HEAD / HTTP/1.1") + b"x\r\n",
    ],
)
async def test_a_refused_head_has_no_body_whatever_the_cuts(first: bytes, refused: bytes) -> None:
    """Fails where a refusal that waits for the answers before it forgets whom it refuses (RFC 9110 section 9.3.2)."""
    tap = Wiretap()
    raw = first + refused
    for cut in range(len(raw)):
        outcome = await tap.ask([raw[:cut], raw[cut:]])
        assert outcome.statuses[-1] == 400
        assert outcome.written.endswith(b"\r\n\r\n"), cut


async def http_and_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers requests; accepts a WebSocket, sends its first message back, and closes."""
    if scope["type"] == "http":
        await read_all(receive)
        await answer(send, scope["raw_path"])
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"]})
    await send({"type": "websocket.close"})


async def written(pieces: list[bytes]) -> bytes:
    """What the server writes, without dates."""
    service = service_of(http_and_websocket, date_header=False)
    tap = Tap().plug(service)
    for piece in pieces:
        for _ in range(20):
            if tap.reading:
                break
            await asyncio.sleep(0)
        if piece and not tap.closed:
            tap.protocol.data_received(piece)
        await turns_of_the_loop(12)
    tap.protocol.connection_lost(None)
    await turns_of_the_loop(12)
    assert not service.active
    return tap.written


@pytest.mark.parametrize(
    "first", [b"", PLAIN, PLAIN * 3, post(CHUNKED) + b"1\r\na\r\n0\r\n\r\n", head(HOST, start=b"HEAD / HTTP/1.1")]
)
async def test_a_websocket_opens_behind_any_request_whatever_the_cuts(first: bytes) -> None:
    """Fails where the offer is ignored if it comes before the answers to the requests before it, and else taken."""
    offer = head(HOST, b"Connection: Upgrade", b"Upgrade: websocket", *WEBSOCKET, start=b"GET /ws HTTP/1.1")
    raw = first + offer + frame(TEXT, b"hello") + frame(TEXT, b"again")
    whole = await written([raw])
    statuses = [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+)", whole)]
    assert statuses == [*[200] * first.count(b" HTTP/1.1"), 101]
    assert whole.endswith(b"\x81\x05hello\x88\x02\x03\xe8")
    for cut in range(1, len(raw)):
        assert await written([raw[:cut], raw[cut:]]) == whole, cut
    assert await written([raw[index : index + 1] for index in range(len(raw))]) == whole
