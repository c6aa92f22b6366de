"""Access lines that are made natively are those that the compiled format makes of the same requests."""

import asyncio
import importlib.util
import re
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.log.access.recorder import AccessLog
from aserver.protocol.service import Service
from tests.protocol.serving import answer, service_of
from tests.protocol.wiretap import TURNS, Tap
from tests.unit.log.starting import Settings

pytestmark = pytest.mark.skipif(importlib.util.find_spec("aserver.protocol.http1.plain") is None, reason="not compiled")

AGENT = b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)"
#: Targets, and lines of fields. All go over one connection, one after the other.
REQUESTS: list[tuple[bytes, list[bytes]]] = [
    (b"/", []),
    (b"/a?b=c", [AGENT]),
    (b"/a?b=c", [AGENT, b"X-Trace: 1"]),
    (b"/", [AGENT, b"Referer: http://t/?q=1"]),
    (b"/", [b"Referer: http://t/?q=1", AGENT]),
    (b"/", [b"Referer: http://t/?q=2", AGENT]),
    (b"/", [b"Referer:", AGENT]),
    (b"/", [AGENT, b"user-agent: another"]),
    (b"/", [b'User-Agent: a"b\\c']),
    (b"/", [b"User-Agent: caf\xc3\xa9 \xff"]),
    (b"/", [b"User-Agent: " + b"long" * 1000]),
    (b"/", [b"User-Agent: short"]),
    (b"/%22%5C%0A", [AGENT]),
    (b"/a'b|c^d`e{}", [AGENT]),
    (b"/" + b"x" * 3000, [AGENT]),
    (b'/a"b', [AGENT]),
    (b"/a\\b?<>", [AGENT]),
    (b"/", [b"Authorization: Basic YWxpY2U6c2VjcmV0"]),
    (b"/", [b"Authorization: Basic Ym9iOnNlY3JldA=="]),
    (b"/", [b"Authorization: Basic YSBiImM6ZA=="]),
    (b"/", [b"Authorization: Bearer abc"]),
    (b"/empty", [AGENT]),
    (b"/teapot", [AGENT]),
    (b"/large", [AGENT]),
    (b"/stream", [AGENT]),
    (b"/empty?", [AGENT]),  # a head is plain from the second time on
    (b"/teapot?", [AGENT]),
    (b"/stream?", [AGENT]),
    (b"/", [AGENT, b"Transfer-Encoding: chunked"]),
    (b"/", [b"X-Forwarded-For: 198.51.100.7"]),
    (b"/", [b"X-Forwarded-For: 198.51.100.8"]),
    (b"/last", [AGENT, b"Connection: close"]),
]


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


class Kept:
    """Lines that are kept; `turns` has how many entries were lines of each turn already."""

    wants_records = False

    def __init__(self, limit: int | None) -> None:
        self.batch: list[Any] = []
        self.make: Any = None
        self.limit = limit
        self.lines: list[str] = []
        self.turns: list[tuple[int, int]] = []

    def begin(self) -> None:
        asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        entries, self.batch[:] = self.batch.copy(), []
        self.turns.append((sum(isinstance(each, str) for each in entries), len(entries)))
        self.lines += self.make(entries)


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    path = scope["path"]
    scope["headers"] = []
    if path == "/teapot":
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"short and stout"})
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})
    else:
        await answer(send, {"/empty": b"", "/large": bytes(100_000)}.get(path, b"ok"))


def service(kept: Kept, style: str, *, native: bool) -> Service:
    access = AccessLog(Settings(access_log_format=style), kept)
    lines = access.plain if native else None
    return service_of(app, access=access.write, lines=lines, proxy_headers=True, forwarded_allow_ips=["192.0.2.1"])


async def lines_of(served: Service, kept: Kept, *, together: bool) -> list[str]:
    """Each request alone, or each on a connection of its own in the same turn."""
    heads = [
        b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: t", *fields, b"", b""]) for target, fields in REQUESTS
    ]
    heads = [head + b"0\r\n\r\n" if b"chunked" in head else head for head in heads]
    taps = [Tap().plug(served) for _ in heads] if together else [Tap().plug(served)] * len(heads)
    for tap, head in zip(taps, heads, strict=True):
        tap.protocol.data_received(head)
        if not together:
            for _ in range(TURNS):
                await asyncio.sleep(0)
    for _ in range(TURNS * 3):
        await asyncio.sleep(0)
    for tap in set(taps):
        tap.protocol.connection_lost(None)
    return [re.sub(r"\[.*?\]", "[time]", line) for line in kept.lines]


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in a turn"])
@pytest.mark.parametrize("limit", [None, 1000], ids=["file", "pipe"])
@pytest.mark.parametrize("style", ["combined", "common"])
async def test_native_lines_are_those_of_the_format(style: str, limit: int | None, together: bool) -> None:
    """Fails with `is_printable` True, with the last texts always taken, without `longest_line`, and with `-` for 0."""
    kept, other = Kept(limit), Kept(limit)
    native = await lines_of(service(kept, style, native=True), kept, together=together)
    ordinary = await lines_of(service(other, style, native=False), other, together=together)
    assert len(ordinary) == len(REQUESTS)
    assert sorted(native) == sorted(ordinary)
    if not together:
        assert native == ordinary
    assert sum(made for made, _ in kept.turns) >= len(REQUESTS) - 8, "most are native"
    assert not any(made for made, _ in other.turns)
    assert max(map(len, native)) <= (limit or 10_000)


@pytest.mark.parametrize("style", ["json", "short", "%(h)s %(D)s"])
async def test_other_formats_are_made_of_records(style: str) -> None:
    kept = Kept(None)
    assert len(await lines_of(service(kept, style, native=True), kept, together=False)) == len(REQUESTS)
    assert not any(made for made, _ in kept.turns)


@pytest.mark.parametrize(("size", "made"), [(2000, 1), (2100, 3)])
@pytest.mark.parametrize("secret", [False, True])
async def test_a_connection_keeps_the_texts_of_short_fields(size: int, made: int, secret: bool) -> None:
    """An idle connection must not hold what its client has sent. Fails without MOST_KEPT, or with the texts' length."""
    kept = Kept(None)
    plain = AccessLog(Settings(access_log_format="combined"), kept).plain
    assert plain is not None
    calls = []

    def texts(client: object, fields: Any) -> tuple[str, str]:
        calls.append(fields)
        return plain.texts(client, fields)

    served = service_of(app, access=print, lines=plain._replace(texts=texts))
    tap = Tap().plug(served)
    field = (b"Authorization: Bearer " if secret else b"User-Agent: ").ljust(size + 12, b"x")
    for _ in range(3):
        tap.protocol.data_received(b"GET / HTTP/1.1\r\nHost: t\r\n" + field + b"\r\n\r\n")
        for _ in range(TURNS):
            await asyncio.sleep(0)
    tap.protocol.connection_lost(None)
    assert len(calls) == made


async def test_paths_that_are_left_out_have_no_native_line() -> None:
    """Fails where `plain` stays although some paths are excluded."""
    kept = Kept(None)
    access = AccessLog(Settings(access_log_exclude=("/a",)), kept)
    served = service_of(app, access=access.write, lines=access.plain)
    lines = await lines_of(served, kept, together=False)
    assert len(lines) == sum(not target.startswith(b"/a") for target, _ in REQUESTS)


async def test_the_time_of_a_line_is_that_of_its_turn() -> None:
    """Fails without `renew_moment`: the line would have no time."""
    kept = Kept(None)
    await lines_of(service(kept, "combined", native=True), kept, together=True)
    assert all(re.search(r" \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] ", line) for line in kept.lines)
