"""Requests that a trusted proxy describes, natively and as without a compiler: same scopes, same records of the log."""

import asyncio
import gc
import importlib.util
import re
import time
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.peer.forwarded import REMEMBERED, REMEMBERED_SIZE
from aserver.protocol.service import Service
from tests.protocol.serving import answer, service_of
from tests.protocol.wiretap import TURNS, Tap

pytestmark = pytest.mark.skipif(importlib.util.find_spec("aserver.protocol.http1.plain") is None, reason="not compiled")

FOR = b"X-Forwarded-For: 198.51.100.7"
HTTPS = b"X-Forwarded-Proto: https"
TRACE = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#: Lines of fields beside `Host: t`, which is the second.
TOLD: dict[str, list[bytes]] = {
    "nothing": [],
    "nginx, as its manual has it": [b"X-Real-IP: 198.51.100.7", FOR, HTTPS, b"X-Request-ID: 4bf92f3577b34da6"],
    "nginx, with a connection for each": [b"Connection: close", FOR, HTTPS],
    "HAProxy": [b"x-forwarded-for: 198.51.100.7", b"x-forwarded-proto: https", b"Connection: keep-alive"],
    "Caddy": [FOR, b"X-Forwarded-Host: t", HTTPS, b"Via: 1.1 Caddy", b"Accept-Encoding: gzip"],
    "Envoy": [b"x-forwarded-for: 198.51.100.7", b"x-forwarded-proto: http", b"x-request-id: 0-1-2", TRACE.lower(),
              b"x-envoy-external-address: 198.51.100.7", b"x-envoy-expected-rq-timeout-ms: 15000"],
    "Traefik": [FOR, b"X-Forwarded-Host: t", b"X-Forwarded-Port: 443", HTTPS, b"X-Forwarded-Server: a",
                b"X-Real-Ip: 198.51.100.7"],
    "a load balancer in a cloud": [FOR, HTTPS, b"X-Forwarded-Port: 443", b"X-Amzn-Trace-Id: Root=1-67-1", TRACE],
    "a chain": [b"X-Forwarded-For: 6.6.6.6, 198.51.100.7:81, 192.0.2.1", b"X-Forwarded-Proto: http,https,http"],
    "IPv6": [b"X-Forwarded-For: [2001:DB8::1]:9"],
    "no address": [b"X-Forwarded-For: unknown"],
    "no value": [b"X-Forwarded-For:", b"X-Forwarded-Host:", b"X-Forwarded-Port:", b"X-Forwarded-Proto:"],
    "another scheme": [b"X-Forwarded-Proto: gopher"],
    "WebSockets' scheme": [b"X-Forwarded-Proto: wss"],
    "another host": [FOR, HTTPS, b"X-Forwarded-Host: example.org"],
    "another host with a port": [b"X-Forwarded-Host: example.org:8443", b"X-Forwarded-Port: 9"],
    "no host": [b"X-Forwarded-Host: a/b"],
    "a port": [b"X-Forwarded-Port: 8443", HTTPS],
    "the port of the other scheme": [b"X-Forwarded-Port: 80", HTTPS],
    "the port of its own scheme": [b"X-Forwarded-Port: 80"],
    "a host and a port": [b"X-Forwarded-Port: 8443", b"X-Forwarded-Host: example.org", HTTPS],
    "no port": [b"X-Forwarded-Port: 99999"],
    "Forwarded": [b"Forwarded: for=198.51.100.7;proto=https;host=example.org"],
    "both": [b"Forwarded: for=6.6.6.6", FOR],
    "long": [b"X-Forwarded-For: " + b"6.6.6.6, " * 40 + b"198.51.100.7"],
    "when": [FOR, b"X-Request-Start: t=%d" % (time.time() + 1800)],
    "only when": [b"X-Request-Start: t=%d" % (time.time() + 1800)],
    "no time": [FOR, b"X-Request-Start: then"],
}  # fmt: skip
#: The same, of which the ordinary handler takes care.
RARE: dict[str, list[bytes]] = {
    "a prefix": [FOR, HTTPS, b"X-Forwarded-Host: example.org", b"X-Forwarded-Prefix: /app"],
    "a prefix, and when": [b"X-Forwarded-Prefix: /app", b"X-Request-Start: t=%d" % (time.time() + 1800)],
    "two lines": [FOR, b"x-forwarded-for: 203.0.113.9"],
    "when, twice": [b"X-Request-Start: t=1", b"X-Request-Start: t=1"],
}


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


def request(lines: list[bytes]) -> bytes:
    return b"\r\n".join([b"GET /a?b HTTP/1.1", b"Accept: */*", b"Host: t", *lines, b"", b""])


def post(lines: list[bytes]) -> bytes:
    return request([*lines, b"Content-Length: 2"]).replace(b"GET", b"POST") + b"ab"


class Seen:
    """A service, and what its application and its log see of requests."""

    def __init__(self, *, native: bool, logged: bool, **values: Any) -> None:
        self.seen: list[Any] = []
        access = self._log if logged else None
        settings = {"proxy_headers": True, "forwarded_allow_ips": ["192.0.2.1"], **values}
        self.service: Service = service_of(self._app, access=access, date_header=False, metered=True, **settings)
        if not native:
            self.service.plain = None

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(await receive())
        scope.pop("request_id", None)  # random
        running: list[Any] = list(self.service.tasks.running)
        scope["headers"] = list(scope["headers"])
        self.seen += [dict(scope), *[(each.client, each.headers, each.target) for each in running]]
        await answer(send, b"ok")

    def _log(self, record: Any) -> None:
        self.seen.append((record.client, record.headers, record.target, record.method, record.status))

    async def ask(self, *requests: bytes) -> tuple[Any, ...]:
        tap = Tap().plug(self.service)
        for each in requests:
            if not tap.closed:
                tap.protocol.data_received(each)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        tap.protocol.connection_lost(None)
        written = re.sub(rb"x-request-id: [0-9a-f]+", b"", tap.written)
        return self.seen, written, self.service.meter.queues, self.service.meter.received

    @property
    def native(self) -> int:
        """The requests that were served natively from their beginning to their end."""
        assert self.service.plain is not None
        return self.service.plain.requests


@pytest.mark.parametrize("name", [*TOLD, *RARE])
@pytest.mark.parametrize("logged", [False, True], ids=["unlogged", "logged"])
@pytest.mark.parametrize(
    "values",
    [{}, {"root_path": "/root"}, {"forwarded_allow_ips": ["192.0.2.9"]}, {"access_log_format": "json"}],
    ids=str,
)
async def test_the_scope_and_the_record_are_those_of_the_ordinary_path(
    name: str, logged: bool, values: dict[str, Any]
) -> None:
    """Fails without `apply_origin`, or without the Host that it sets, or its client, scheme or queue time."""
    raw = request({**TOLD, **RARE}[name])
    native, ordinary = (Seen(native=native, logged=logged, **values) for native in (True, False))
    others = request([b"X-Forwarded-For: 203.0.113.9"]), request([])
    requests = (raw, raw) if b"close" in raw else (raw, *others, post({**TOLD, **RARE}[name]), raw)
    assert await native.ask(*requests) == await ordinary.ask(*requests)


@pytest.mark.parametrize("name", TOLD)
async def test_they_are_served_natively(name: str) -> None:
    """Else the ordinary path is compared with itself; and proxies are before most servers."""
    native = Seen(native=True, logged=True)
    raw = request(TOLD[name])
    await native.ask(request([]))  # an answer's head is made by the ordinary exchange
    before = native.native
    await native.ask(raw, raw)
    assert native.native - before == 1 + (b"close" not in raw)
    assert native.service.tasks.requests == 0


async def test_what_is_remembered_has_a_limit() -> None:
    """Else strangers fill the memory: they choose the left part of each list."""
    native = Seen(native=True, logged=False)
    lines = [b"X-Forwarded-For: 203.0.113.%d, 198.51.100.%d" % divmod(n, 256) for n in range(REMEMBERED + 9)]
    await native.ask(request([b"X-Forwarded-For: " + b" " * 9 + b"6" * REMEMBERED_SIZE + b", 198.51.100.7"]))
    tables = [each for each in gc.get_referents(native.service.plain) if isinstance(each, dict)]

    def groups() -> list[Any]:
        return [key for table in tables for key in table if isinstance(key, tuple) and isinstance(key[0], tuple)]

    assert groups() == []
    await native.ask(*[request([line]) for line in lines[:99]])
    assert len(groups()) == 99
    await native.ask(*[request([line]) for line in lines[99:]])
    assert len(groups()) <= 9
