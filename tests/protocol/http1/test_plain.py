"""Plain requests natively (`http1/plain.pyx`) and as without a compiler: same requests, answers, faults and logs."""

import asyncio
import gc
import importlib.util
import sys
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.application.body import HIGH_WATER
from aserver.protocol.semantics.response import JOIN_LIMIT
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.http1.framing_rows import BEHIND, PLAIN
from tests.protocol.serving import GET, LAST_GET, answer, read_all, service_of, serving
from tests.protocol.sides import Side, both, cancel_itself, exit_process, message, script
from tests.protocol.wiretap import TURNS, Tap, Written

pytestmark = pytest.mark.skipif(importlib.util.find_spec("aserver.protocol.http1.plain") is None, reason="not compiled")

HEAD = b"HEAD / HTTP/1.1\r\nHost: t\r\n\r\n"
POST_HEAD = b"POST /p?q HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"
POST = POST_HEAD % 3 + b"abc"


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough for most: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


async def read_to_the_end(_scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"%d" % len(await read_all(receive)))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    if message["type"] == "http.request":
        await answer(send, message["body"])


TOKEN = st.sampled_from(
    b"a|Accept|X-Y|x_1|Host|host|Cookie|Connection|TE|A b|\xe4||Content-Length|Transfer-Encoding|Upgrade|Expect|"
    b"Proxy-Connection|X-Forwarded-For|X-Forwarded-Proto|Forwarded|X-Request-Start|X-Forwarded-Host|x-forwarded-port|"
    b"X-Forwarded-Prefix".split(b"|")
)
VALUE = st.one_of(
    st.sampled_from(
        b"1|t|t:80|t:|:1|[::1]|a b|\t x \t|close|Close|keep-alive|keep-alive, close|0|chunked|h2c|100-continue|\x7f"
        b"||a\0b|\xff|x\ry|198.51.100.7|https|trailers|upgrade|443|81|/p|for=198.51.100.7;host=u".split(b"|")
    ),
    st.binary(max_size=6),
)
FIELD = st.tuples(TOKEN, st.sampled_from([b":", b": ", b":\t ", b" :", b""]), VALUE).map(b"".join)
LINE = st.sampled_from(
    b"GET / HTTP/1.1\nGET /a%20b?c=%20&d HTTP/1.1\nHEAD //e?f?g HTTP/1.1\nDELETE /?# HTTP/1.1\nPOST /p HTTP/1.1\n"
    b"OPTIONS * HTTP/1.1\nGET http://h/ HTTP/1.1\nGET /\xe4 HTTP/1.1\nGET /%e4|\"'{} HTTP/1.1\nGET / HTTP/1.0\n"
    b"GET  / HTTP/1.1\nget / HTTP/1.1\nBREW / HTTP/1.1\nPATCH /? HTTP/1.1\nCONNECT h:1 HTTP/1.1\nGET / HTTP/1.1 \n"
    b"GET /\x7f HTTP/1.1".split(b"\n")
)
HOSTS = st.sampled_from([[b"Host: t"], [b"host:  example.org:8000 "], [b"HOST:[::1]:80"], [], [b"Host: t", b"Host: t"]])
ENDS = st.sampled_from(
    [b"\r\n\r\n", b"\n\n", b"\r\n", b"\r\n\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n", b"\r\n\r\nabc", b"\r\n \r\n\r\n"]
)
HEADS = st.builds(
    lambda line, host, lines, end: b"\r\n".join([line, *host, *lines]) + end,
    LINE,
    HOSTS,
    st.lists(FIELD, max_size=5),
    ENDS,
)


LENGTHS = st.sampled_from(b"3|03|0|2|4|+3|-3|0x3|3,3|3 3||3\t|99999999999999999999999|3\x0b|3\0|\xb3".split(b"|"))
POSTS = st.builds(
    lambda method, lines, name, length, end: b"\r\n".join([method + b" /p HTTP/1.1", *lines, name + length]) + end,
    st.sampled_from([b"POST", b"PUT", b"PATCH", b"GET", b"HEAD", b"DELETE"]),
    st.lists(st.one_of(FIELD, st.just(b"Host: t")), max_size=2).map(lambda lines: [b"Host: t", *lines]),
    st.sampled_from([b"Content-Length: ", b"content-length:", b"Content-Length : ", b"Content-Length:\t"]),
    LENGTHS,
    st.sampled_from(
        [b"\r\n\r\nabc", b"\r\n\r\nabc" + GET, b"\r\nContent-Length: 3\r\n\r\nabc", b"\r\n\r\n", b"\n\nabc"]
    ),
)
SPOILT = st.builds(
    lambda head, at, junk: head[:at] + junk + head[at:], HEADS | POSTS, st.integers(0, 60), st.binary(max_size=2)
)


@given(st.one_of(HEADS, HEADS, POSTS, POSTS, SPOILT))
@example(b"GET / HTTP/1.1\r\nHost:\r\n\r\n")
@example(b"\r\n" + GET)
@settings(max_examples=600, deadline=None)
def test_any_head_is_the_same_request_or_the_same_fault(raw: bytes) -> None:
    """Fails without any of the native checks."""
    asyncio.run(both(echo, raw, GET, proxy_headers=True, forwarded_allow_ips=["192.0.2.1"]))


@pytest.mark.parametrize("behind", BEHIND)
async def test_the_table_of_framing(behind: bytes) -> None:
    await both(echo, PLAIN + behind)
    await both(echo, PLAIN, behind)


async def test_what_is_plain_is_taken() -> None:
    """Else all of this compares the ordinary handler with itself."""
    side = Side(echo, native=True)
    await side.ask(GET, POST, POST_HEAD % 0, POST_HEAD % HIGH_WATER + b"a" * HIGH_WATER, LAST_GET)
    assert side.service.plain is not None
    assert side.service.plain.requests == 5
    assert side.service.tasks.requests == 0


async def test_bodies_of_any_size_wherever_they_are_cut() -> None:
    """Fails without any of the conditions on `body` in `parse`."""
    for size in (0, 1, 7000, 8190, 8192, HIGH_WATER, HIGH_WATER + 1, 300_000):
        for missing in (0, 1, size):
            raw = POST_HEAD % size + b"b" * size
            cut = len(raw) - missing
            outcome = await both(read_to_the_end, raw[:cut], raw[cut:], GET)
            assert outcome[2].count(b"HTTP/1.1 200") == 2
            assert outcome[2].find(b"\r\n%d" % size) > 0
            assert outcome[5] == size
            await both(read_to_the_end, raw[:cut], raw[cut:] + POST, POST)
            await both(script(OK, BODY), raw[:cut], raw[cut:], GET)


@pytest.mark.parametrize("last", [False, True])
async def test_a_large_answer_is_native_and_not_copied(last: bool, stays_native: Callable[[], None]) -> None:
    """Fails where `piece` leaves it to the ordinary exchange, or joins it to its head."""
    body = b"x" * JOIN_LIMIT
    raw = LAST_GET if last else GET

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, body)

    side = Side(app, native=True)
    await side.ask(raw)
    stays_native()
    tap = Written().plug(side.service)
    tap.protocol.data_received(raw)
    await turns_of_the_loop(TURNS)
    head, written = tap.writes
    assert head.endswith(b"\r\n\r\n")
    assert written is body
    assert tap.closed == last
    assert side.records[-1][5] == len(body)


async def test_a_client_leaves_before_its_body_is_taken() -> None:
    """The application hears of it, and not of the body, natively as without."""
    heard: list[Any] = []
    for native in (True, False):
        begin = asyncio.Event()

        async def app(_scope: Scope, receive: Receive, _send: Send, begin: asyncio.Event = begin) -> None:
            await begin.wait()
            heard.append(await receive())

        side = Side(app, native=native)
        tap = Tap().plug(side.service)
        tap.protocol.data_received(POST)
        await turns_of_the_loop(TURNS)
        tap.protocol.connection_lost(None)
        begin.set()
        while side.service.active:
            await asyncio.sleep(0)
    assert heard == [{"type": "http.disconnect"}] * 2


async def _raise(*_: Any) -> None:
    raise ValueError("of the application")


async def _hear(receive: Receive, _: Send) -> None:
    await receive()


async def _echo(receive: Receive, send: Send) -> None:
    await answer(send, repr(await receive()).encode())


async def _go_on(_receive: Receive, send: Send) -> None:
    with pytest.raises(Exception, match="unexpected ASGI message"):
        await send(message("body", body=b"more"))


LENGTH = [(b"content-length", b"2")]
OK = message("start", status=200, headers=LENGTH)
BODY = message("body", body=b"ok")
SCRIPTS: dict[str, tuple[Any, ...]] = {
    "whole": (OK, BODY),
    "no length": (message("start", status=201, headers=[(b"x", b"y")]), BODY),
    "tuples": (message("start", status=200, headers=((b"X-A", b"b"),)), BODY),
    "lists": (message("start", status=200, headers=[[b"X-A", b"b"]]), BODY),
    "a generator": (message("start", status=200, headers=iter([])), BODY),
    "no headers": (message("start", status=200), BODY),
    "no body": (message("start", status=200, headers=[]), message("body")),
    "bytearray": (OK, message("body", body=bytearray(b"ok"))),
    "str": (OK, message("body", body="ok")),
    "too long": (OK, message("body", body=b"long"), BODY),
    "too short": (OK, message("body", body=b"l")),
    "in pieces": (OK, message("body", body=b"o", more_body=True), message("body", body=b"k")),
    "chunks": (message("start", status=200, headers=[]), message("body", body=b"o", more_body=True), message("body")),
    "large": (message("start", status=200, headers=[]), message("body", body=b"o" * 70000)),
    "204": (message("start", status=204, headers=[]), BODY),
    "304 with a length": (message("start", status=304, headers=LENGTH), message("body")),
    "unknown status": (message("start", status=299, headers=[]), BODY),
    "no status": (message("start", headers=[]), BODY),
    "close": (message("start", status=200, headers=[*LENGTH, (b"connection", b"close")]), BODY),
    "date": (message("start", status=200, headers=[*LENGTH, (b"server", b"mine")]), BODY),
    "trailers": (message("start", status=200, headers=[], trailers=True), BODY),
    "early hint": (message("early_hint", links=[b"</a>"]), OK, BODY),
    "body first": (BODY,),
    "two starts": (OK, OK),
    "two answers": (OK, BODY, _go_on),
    "another type": (message("unheard-of"),),
    "nothing": (),
    "half": (OK,),
    "no type": ({},),
    "raises": (_raise,),
    "raises after the head": (OK, _raise),
    "raises after the answer": (OK, BODY, _raise),
    "exits": (exit_process,),
    "is cancelled": (cancel_itself,),
    "is cancelled after the head": (OK, cancel_itself),
    "hears twice after the answer": (_hear, OK, BODY, _hear, _hear),
    "hears twice": (_hear, _hear, OK, BODY),
    "echoes": (_echo,),
    "echoes after a hint": (message("early_hint", links=[b"</a>"]), _echo),
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("raw", [GET, LAST_GET, HEAD, POST], ids=["kept", "last", "HEAD", "POST"])
@pytest.mark.parametrize("draining", [False, True])
async def test_any_application_has_the_same_answer(name: str, raw: bytes, draining: bool) -> None:
    native, ordinary = (Side(script(*SCRIPTS[name]), native=native, header=["x-h: 1"]) for native in (True, False))
    outcomes = []
    for side in (native, ordinary):
        if draining:
            side.service.drain()
        outcomes += [[*await side.ask(raw, raw), *await side.ask(raw, raw)]]  # the second knows the heads
    for one, other in zip(*outcomes, strict=True):
        assert one == other


@pytest.mark.parametrize(
    "values",
    [
        {"root_path": "/app"},
        {"limit_concurrency": 1},
        {"limit_request_line": 60},
        {"limit_request_fields": 2},
        {"limit_request_field_size": 40},
        {"limit_request_body": 2},
        {"limit_request_body": 3},
        {"forwarded_allow_ips": ["*"], "proxy_headers": True},
        {"server_header": True},
        {"metered": True},
    ],
    ids=str,
)
async def test_any_setting_means_the_same(values: dict[str, Any]) -> None:
    for raw in (GET, b"GET /" + b"a" * 60 + b" HTTP/1.1\r\nHost: t\r\na: 1\r\nb: 2\r\nc: " + b"d" * 50 + b"\r\n\r\n"):
        await both(echo, raw, GET, **values)
        await both(echo, POST, GET, **values)
        await both(echo, POST.replace(b"Host", b"X-Forwarded-For: 192.0.2.7\r\nHost"), GET, **values)


async def test_more_requests_while_one_runs() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await answer(send, scope["raw_path"])

    await both(slow, GET + GET, GET)
    for first in (GET, LAST_GET, POST):
        native, ordinary = Side(slow, native=True), Side(slow, native=False)
        outcomes = []
        for side in (native, ordinary):
            tap = Tap().plug(side.service)
            tap.protocol.data_received(first)
            tap.protocol.data_received(b"GET /2 HTTP/1.1\r\nHost: t\r\n\r\n")
            while side.service.active:
                await asyncio.sleep(0)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            outcomes.append((tap.written, tap.closed, side.service.requests))
            tap.protocol.connection_lost(None)
        assert outcomes[0] == outcomes[1]


async def test_send_and_receive_act_when_they_are_awaited_and_are_coroutines() -> None:
    """As those of other servers: an application may make tasks of them."""
    seen: list[Any] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        first: Coroutine[Any, Any, Any] = receive()  # type: ignore[assignment]
        seen.append(await asyncio.create_task(first))
        with pytest.raises(RuntimeError, match="already awaited"):
            await first
        head, body = send(OK), send(BODY)
        await asyncio.sleep(0)
        seen.append(bytes(tap.written))
        await asyncio.wait_for(asyncio.ensure_future(head), 5)
        await asyncio.gather(body)
        send(BODY).close()  # type: ignore[attr-defined]
        seen.append(await asyncio.wait_for(receive(), 5))

    side = Side(app, native=True)
    tap = Tap().plug(side.service)
    tap.protocol.data_received(GET)
    while side.service.active:
        await asyncio.sleep(0)
    assert [each["type"] if isinstance(each, dict) else each for each in seen] == [
        "http.request",
        b"",
        "http.disconnect",
    ]
    assert tap.written.endswith(b"\r\n\r\nok")


async def test_the_task_is_a_real_one() -> None:
    """With a name, a context of its own, and a stack that shows the application."""
    number: ContextVar[int] = ContextVar("number", default=0)
    tasks: list[asyncio.Task[Any]] = []
    going = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        number.set(number.get() + 1)
        await going.wait()
        await answer(send, b"%d" % number.get())

    side = Side(app, native=True)
    taps = [Tap().plug(side.service) for _ in range(2)]
    for tap in taps:
        tap.protocol.data_received(GET)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len({task.get_name() for task in tasks}) == 2
    assert set(tasks) <= asyncio.all_tasks()
    assert "_call" in repr(tasks[0])
    going.set()
    while side.service.active:
        await asyncio.sleep(0)
    assert [tap.written[-1:] for tap in taps] == [b"1", b"1"]
    assert number.get() == 0


async def test_a_task_factory_is_obeyed() -> None:
    made: list[Any] = []

    def factory(loop: Any, coro: Any, **more: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **more)

    side = Side(echo, native=True)
    asyncio.get_running_loop().set_task_factory(factory)
    try:
        outcome = await side.ask(GET)
    finally:
        asyncio.get_running_loop().set_task_factory(None)
    assert outcome[2].startswith(b"HTTP/1.1 200")
    assert len(made) == 1


async def test_nothing_is_left_of_a_request() -> None:
    """No cycle keeps what an application has given. Fails if the task or the application's coroutine is kept."""

    class Token:
        pass

    tokens: list[weakref.ref[Token]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["token"] = token = Token()
        tokens.append(weakref.ref(token))
        if len(tokens) % 2:
            await asyncio.sleep(0)
        await echo(scope, receive, send)

    side = Side(app, native=True)
    gc.collect()
    gc.disable()
    try:
        await side.ask(*[GET] * 6)
        side.scopes.clear()
        assert [each() for each in tokens if each() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("requests", [(GET,), (LAST_GET,), (GET, GET), (GET, HEAD, GET), (HEAD, GET), (POST, GET)])
async def test_nothing_is_left_of_a_connection(requests: tuple[bytes, ...]) -> None:
    """Also before the next sweep: else all connections of a second would be in memory. Fails without `untouch`."""
    side = Side(echo, native=True)
    await side.ask(*requests)
    gc.collect()
    gc.disable()
    try:
        tap = Tap().plug(side.service)
        for request in requests:
            tap.protocol.data_received(request)
            await turns_of_the_loop(TURNS)
        assert tap.written.startswith(b"HTTP/1.1 200")
        tap.protocol.connection_lost(None)
        left = weakref.ref(tap)
        side.scopes.clear()
        side.records.clear()
        tap.protocol = None
        del tap
        await turns_of_the_loop()
        assert left() is None
        side.service.sweep(side.service.context.now + 1)
    finally:
        gc.enable()


async def test_connections_of_one_address_share_the_beginning_of_their_scopes() -> None:
    """Each transport makes its address anew. Fails where it is compared by identity: 632 bytes for each connection."""
    side = Side(echo, native=True)
    dicts = []
    for _ in range(2):
        tap = Tap().plug(side.service)
        tap.protocol.data_received(GET)
        await turns_of_the_loop(TURNS)
        assert tap.written.startswith(b"HTTP/1.1 200")
        found = (each for each in gc.get_referents(tap.protocol.handler) if isinstance(each, dict))
        dicts.append(next(each for each in found if "http_version" in each))
    assert dicts[0] is dicts[1]


async def test_counts_of_references_do_not_grow() -> None:
    side = Side(script(_hear, OK, BODY), native=True)
    raw = POST.replace(b"\r\n\r\n", b"\r\nCookie: %d\r\nX-Unheard-Of: %d\r\nAccept: %d\r\n\r\n")
    await side.ask(*[raw % (n, n, n) for n in range(50)])
    shared = (GET, OK, BODY, b"ok", side.service.context, None)
    side.scopes.clear()
    side.records.clear()
    gc.collect()
    before = [sys.getrefcount(each) for each in shared], sys.getallocatedblocks()
    await side.ask(*[raw % (n, n, n) for n in range(500)])
    side.scopes.clear()
    side.records.clear()
    gc.collect()
    after = [sys.getrefcount(each) for each in shared], sys.getallocatedblocks()
    growth = [new - old for new, old in zip(after[0], before[0], strict=True)]
    assert max(growth[:-1]) < 50
    assert after[1] - before[1] < 250


class Corked(Tap):
    """A transport that keeps its last bytes until it is closed, as that of `transport/native.pyx`."""

    kept = b""

    def write_last(self, data: bytes) -> None:
        assert not self.closed
        self.kept = data

    def close(self) -> None:
        super().close()
        self.written += self.kept


@pytest.mark.parametrize("raw", [GET, LAST_GET], ids=["kept", "last"])
async def test_the_last_answer_leaves_with_the_end(raw: bytes) -> None:
    """It alone: nothing else would send it. Fails without `write_last` in `write_answer`, or with it always."""
    service = service_of(echo)
    taps: list[Corked] = []
    for _ in range(2):  # the first has the ordinary handler make the head
        tap = Corked().plug(service)
        tap.protocol.data_received(raw)
        await turns_of_the_loop(TURNS)
        assert tap.written.startswith(b"HTTP/1.1 200")
        assert tap.closed == (raw is LAST_GET)
        taps.append(tap)
    assert bool(taps[-1].kept) == (raw is LAST_GET)


async def test_over_a_real_socket_with_a_client_that_leaves() -> None:
    cancelled = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        if (await receive())["type"] == "http.disconnect":
            cancelled.set()

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        client.close()
        await asyncio.wait_for(cancelled.wait(), 30)
