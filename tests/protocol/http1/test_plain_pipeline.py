"""Requests behind a request, natively (`http1/plain.pyx`): the same answers, in the same order, as ordinarily."""

import asyncio
import importlib.util
import itertools
import os
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.http1.reader import PORTION_BYTES
from aserver.protocol.semantics.response import JOIN_LIMIT
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.http1.heads import get
from tests.protocol.serving import GET, LAST_GET, answer, body_of, read_all
from tests.protocol.sides import Side, message
from tests.protocol.wiretap import TURNS, Lenient, Tap, Written

pytestmark = pytest.mark.skipif(importlib.util.find_spec("aserver.protocol.http1.plain") is None, reason="not compiled")

POST = b"POST /p HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc"


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the query says: in a piece of so many bytes, late, as a stream, with a fault, or with a last answer."""
    query = scope["query_string"]
    body = b"%s %s " % (scope["path"].encode(), await read_all(receive))
    if query == b"late":
        await turns_of_the_loop(3)
    if query.isdigit():
        body += b"x" * int(query)
    if query == b"raise":
        raise ValueError("of the application")
    if query == b"stream":
        await send(message("start", status=200, headers=[(b"x", b"y")]))
        for _ in range(3):
            await send(message("body", body=body, more_body=True))
        await send(message("body"))
    elif query == b"close":
        await answer(send, body, headers=[(b"connection", b"close")])
    else:
        await answer(send, body)
    if query == b"after":
        await turns_of_the_loop(2)
        raise ValueError("after the answer")
    if query == b"hear":
        await receive()


FRAMES = (b"", b"?late", b"?stream", b"?raise", b"?after", b"?hear", b"?close", b"?%d" % JOIN_LIMIT, b"?%d" % 20_000)
REQUESTS = st.one_of(
    st.builds(lambda query: get(b"/a" + query), st.sampled_from(FRAMES)),
    st.sampled_from(
        [
            GET,
            GET,
            POST,
            POST,
            LAST_GET,
            GET.replace(b"GET", b"HEAD"),
            POST.replace(b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            POST.replace(b"Host: t", b"Host: t\r\nExpect: 100-continue"),
            GET.replace(b"1.1", b"1.0"),
            GET.replace(b"Host: t", b"Host: t\r\nUpgrade: h2c\r\nConnection: upgrade"),
            GET.replace(b"Host: t", b"Host: t\r\nX-Forwarded-For: 198.51.100.7\r\nX-Request-Start: t=1"),
            GET.replace(b"Host: t", b"Host: t\r\nX-Forwarded-Prefix: /p"),
            b"GET / HTTP/1.1\r\n\r\n",
            b"\r\n" + GET,
            b"\0",
            POST[:-1],
            b"GET / HT",
        ]
    ),
)


@given(
    st.lists(REQUESTS, min_size=1, max_size=6).map(b"".join),
    st.lists(st.integers(1, 400), max_size=2),
    st.sampled_from([{}, {}, {"access_log_format": "%({request_id}e)s"}]),
)
@settings(max_examples=600, deadline=None)
def test_any_pipeline_is_the_same_answers(sent: bytes, cuts: list[int], values: dict[str, Any]) -> None:
    """Fails without any of the conditions in `take`, and where what is left is passed on twice, not, or too late."""
    places = sorted({min(cut, len(sent)) for cut in cuts} | {0, len(sent)})
    pieces = [sent[a:b] for a, b in itertools.pairwise(places)]
    heads = [get(b"/a" + query) for query in FRAMES if query not in {b"?close", b"?raise"}]  # they are known then

    async def compare() -> None:
        outcomes = []
        for native in (True, False):
            with mock.patch.object(os, "urandom", bytes):  # ids begin with it
                side = Side(app, native=native, proxy_headers=True, forwarded_allow_ips=["192.0.2.1"], **values)
            for head in (GET, POST, *heads):
                await side.ask(head)
            *outcome, _ = await side.ask(*pieces, turns=60)
            outcomes.append(outcome)  # without the bytes that were read: what is left is not read after a close
        assert outcomes[0] == outcomes[1]

    asyncio.run(compare())


async def warm(**values: Any) -> Side:
    side = Side(app, native=True, **values)
    for head in (GET, POST, get(b"/a"), get(b"/a?stream"), get(b"/a?late")):
        await side.ask(head)
    return side


def answers(written: bytes) -> list[bytes]:
    return [body_of(each) for each in written.split(b"HTTP/1.1 ")[1:]]


async def test_requests_that_come_together_are_taken(stays_native: Callable[[], None]) -> None:
    """One after the other, and their answers are a single write. Fails without `hold_answer`."""
    side = await warm()
    stays_native()
    tap = Written().plug(side.service)
    tap.protocol.data_received(GET * 3 + POST + get(b"/a") * 4)
    await turns_of_the_loop(30)
    assert [answers(each) for each in tap.writes] == [[b"/  "] * 3 + [b"/p abc "] + [b"/a  "] * 4]
    assert tap.protocol.idle


async def test_a_slow_request_does_not_hold_back_the_answers_before_it(stays_native: Callable[[], None]) -> None:
    """They are written once a turn adds none. Fails without `flush_pipelined`, or where that waits for the last."""
    side = await warm()
    stays_native()
    tap = Written().plug(side.service)
    tap.protocol.data_received(GET * 2 + get(b"/a?late") + GET)
    await turns_of_the_loop(30)
    assert [answers(each) for each in tap.writes] == [[b"/  "] * 2, [b"/a  ", b"/  "]]


async def test_streams_between_pipelined_answers_are_in_order(stays_native: Callable[[], None]) -> None:
    """And written with them. Fails without `rest` in `write_piece`."""
    side = await warm()
    stays_native()
    tap = Written().plug(side.service)
    tap.protocol.data_received((GET + get(b"/a?stream")) * 3)
    assert side.service.plain is not None
    while side.service.active:
        side.service.plain.gather_until = 0.0
        await asyncio.sleep(0)
    stream = b"4\r\n/a  \r\n" * 3 + b"0\r\n\r\n"
    assert answers(tap.written) == [b"/  ", stream] * 3
    assert len(tap.writes) == 1


async def test_an_application_that_blocks_the_loop_holds_no_answer_back(stays_native: Callable[[], None]) -> None:
    """Fails without `hold_until` in `hold_answer`."""
    side = await warm()
    stays_native()
    tap = Written().plug(side.service)
    held: list[int] = []

    async def block(scope: Scope, receive: Receive, send: Send) -> None:
        held.append(len(side.records) - len(answers(tap.written)))
        time.sleep(0.03)
        await answer(send, b"/a  ")

    side.app = block
    side.records.clear()
    tap.protocol.data_received(get(b"/a") * 6)
    await turns_of_the_loop(30)
    assert max(held) == 1


async def test_no_request_begins_before_the_one_before_it_is_answered(stays_native: Callable[[], None]) -> None:
    """A pipeline is a client's share of a turn: others are served between its requests."""
    side = await warm()
    stays_native()
    greedy, honest = Tap().plug(side.service), Tap().plug(side.service)
    greedy.protocol.data_received(get(b"/a") * 100)
    honest.protocol.data_received(GET)
    while not honest.written:
        await asyncio.sleep(0)
    assert len(side.scopes) < 5
    await turns_of_the_loop(250)
    assert len(answers(greedy.written)) == 100


@pytest.mark.parametrize("end", ["lost", "aborted"])
async def test_nothing_behind_it_is_begun_once_the_client_has_left(end: str) -> None:
    """Fails where `drop` keeps the requests that are left."""
    side = await warm()
    tap = Lenient().plug(side.service)
    side.scopes.clear()
    tap.protocol.data_received(get(b"/a?late") + GET * 3)
    await turns_of_the_loop(2)
    if end == "aborted":
        tap.protocol.abort()
    else:
        tap.protocol.connection_lost(None)
    await turns_of_the_loop(TURNS)
    assert [scope["path"] for scope in side.scopes] == ["/a"]
    assert not side.service.active


async def test_more_than_a_portion_is_read_by_the_reader_that_takes_turns() -> None:
    """Fails without MOST_PIPELINED: all requests of a large piece would be kept, and none be counted."""
    count = PORTION_BYTES // len(GET) + 1
    side = await warm()
    assert side.service.plain is not None
    before = side.service.plain.requests
    tap = Tap().plug(side.service)
    tap.protocol.data_received(GET * count)
    await turns_of_the_loop(2000)
    assert len(answers(tap.written)) == count
    assert side.service.plain.requests == before


async def test_what_comes_while_requests_wait_is_behind_them() -> None:
    """Also the client's half-close. Fails where `fall_back` does not pass on what is left."""
    side = await warm()
    for half_close in (False, True):
        tap = Tap().plug(side.service)
        tap.protocol.data_received(GET + get(b"/a"))
        if half_close:
            assert tap.protocol.eof_received()
        else:
            tap.protocol.data_received(POST[:-1])
            tap.protocol.data_received(POST[-1:])
        await turns_of_the_loop(30)
        assert answers(tap.written) == [b"/  ", b"/a  "] + [b"/p abc "] * (not half_close)
        assert tap.closed == half_close


async def test_no_request_begins_while_the_client_does_not_read() -> None:
    """Fails without `paused` in `take_next`."""
    side = await warm()
    tap = Tap().plug(side.service)
    tap.protocol.data_received(GET * 3)
    tap.protocol.pause_writing()
    side.scopes.clear()
    await turns_of_the_loop(30)
    assert len(side.scopes) == 1
    tap.protocol.resume_writing()
    await turns_of_the_loop(30)
    assert len(answers(tap.written)) == 3


async def test_while_the_server_stops_the_last_answer_alone_closes() -> None:
    outcomes = []
    for native in (True, False):
        side = Side(app, native=native)
        await side.ask(GET)
        tap = Tap().plug(side.service)
        tap.protocol.data_received(GET * 4)
        await asyncio.sleep(0)
        side.service.drain()
        await turns_of_the_loop(30)
        outcomes.append((tap.written, tap.closed, tap.half_closed))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0].count(b"connection: close") == 1
    assert len(answers(outcomes[0][0])) == 4


async def test_a_limit_of_concurrency_counts_the_request_before_it() -> None:
    """As ordinarily: it has answered, and its task has not ended."""
    for native in (True, False):
        side = Side(app, native=native, limit_concurrency=1)
        await side.ask(GET)
        _, _, written, *_ = await side.ask(GET * 4, GET, turns=60)
        statuses = [each[:3] for each in written.split(b"HTTP/1.1 ")[1:]]
        assert len(statuses) == 5
        assert statuses[:2] == [b"200", b"503"]
        assert statuses[-1] == b"200"
