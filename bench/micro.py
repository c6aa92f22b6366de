"""Measures the hot path alone: bytes are fed to connections, without sockets. The figure is CPU time per request.

    python -m bench.micro                                     # every case, this checkout
    python -m bench.micro hello browser --against ../before   # in turns with another checkout, and the ratio

Each figure is the smallest of many timings. Each checkout is measured in processes of its own, which take turns. It
needs the environment in which aserver is installed. The costs of kernel and transport are left out: confirm a finding
with `python -m bench run`.
"""

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
CONNECTIONS = 64
TURNS = 150  # of the loop in a timing. In each turn, each connection gets a piece of bytes

_HOST = b"Host: 127.0.0.1:8000\r\n"
_BROWSER = (
    _HOST + b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\nReferer: http://bench.local/shop/items?page=2&order=price\r\n"
    b"Cookie: session=7f0c2a9be1d84c63a5f1; theme=dark; consent=1; _ga=GA1.2.1234567890.1700000000\r\n"
    b"Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
)
_PROXY = _HOST + b"X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"


_UPGRADE = (
    _HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def _get(target: bytes, fields: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (target, fields)


def _cases() -> dict[str, tuple[list[bytes], int]]:
    """Return name -> the pieces that each connection gets in turn, again and again; and the requests in a piece."""
    numbers = range(7)  # the requests of a turn differ from those of the turn before
    return {
        "hello": ([_get(b"/", _HOST)], 1),
        "targets": ([_get(b"/items/%d?page=%d" % (n, n * n), _HOST) for n in numbers], 1),
        "browser": ([_get(b"/", _BROWSER)], 1),
        "browser-targets": ([_get(b"/items/%d" % n, _BROWSER) for n in numbers], 1),
        "browser-others": ([_get(b"/", _BROWSER.replace(b"7f0c", b"7f%02d" % n)) for n in numbers], 1),
        "proxy": ([_get(b"/", _PROXY)], 1),
        "proxy-others": ([_get(b"/", _PROXY.replace(b".7\r", b".%d\r" % n)) for n in numbers], 1),
        "post": ([b"POST / HTTP/1.1\r\n%bContent-Length: 13\r\n\r\nHello, world!" % _HOST], 1),
        "pipelined": ([_get(b"/", _HOST) * 16], 16),
    }


#: Cases with an access log in the default format, into a file: name -> the case without it.
_LOGGED = {"hello-logged": "hello", "browser-logged": "browser-targets", "others-logged": "browser-others"}
#: Cases with `metrics`, which count each request: name -> the case without them.
_METERED = {"hello-metered": "hello", "browser-metered": "browser"}


#: Cases of HTTP/2: name -> requests in a piece, each on a stream.
_STREAMS = {"h2-hello": 1, "h2-10": 10}


def _socket_cases() -> dict[str, tuple[list[bytes], int]]:
    """Return the cases of WebSockets: name -> pieces of frames, and the messages in a piece."""
    binary, text = (bytes((first, 0x80 | 64)) + b"mask" + bytes(64) for first in (0x82, 0x81))
    large = bytes((0x82, 0x80 | 127)) + (1 << 16).to_bytes(8, "big") + b"mask" + bytes(1 << 16)
    return {
        "ws-binary": ([binary], 1),
        "ws-text": ([text], 1),
        "ws-10-a-packet": ([binary * 10], 10),
        "ws-64k": ([large], 1),
    }


class _Transport:
    """The part of a transport that a connection uses. It counts writes, and drops the bytes."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.writes = 0
        self.write: Any = self._count

    def _count(self, _: bytes) -> None:
        self.writes += 1

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8000)}.get(name, default)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


def _access_log(config: Any) -> dict[str, Any]:
    """Return the arguments that a worker gives its Service for an access log into a file."""
    from aserver.log.access.recorder import AccessLog
    from aserver.log.sink import Sink

    with tempfile.TemporaryFile() as file:
        sink = Sink.for_fd(os.dup(file.fileno()), name="access log")
    sink.attach(asyncio.get_running_loop())
    log = AccessLog(config, sink)
    return {"access": log.write, "timed": log.timed}


async def _measure(
    pieces: list[bytes], batch: int, timings: int, *, logged: bool = False, metered: bool = False
) -> float:
    """Return microseconds of CPU for a request."""
    from aserver.config import Layer, build
    from aserver.protocol.service import Service

    app = importlib.import_module("hello").app
    config = build([Layer("micro", {"target": "hello:app", "proxy_headers": True})]).config
    more: dict[str, Any] = _access_log(config) if logged else {}
    page = memoryview(b"")
    if metered:  # the other tree may be older than the meters
        from aserver.metrics.page import WORDS

        more["metered"] = True
        page = memoryview(bytearray(8 * WORDS)).cast("Q")
    service = Service(app, config, loop=asyncio.get_running_loop(), state={}, **more)
    make = service.protocol_factory()
    connections: list[Any] = [make() for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connection_made(_Transport(connection))
    best = float("inf")
    for _ in range(timings):
        before, done = time.process_time_ns(), service.requests
        for turn in range(TURNS):
            piece = pieces[turn % len(pieces)]
            for connection in connections:
                connection.data_received(piece)
            while service.active:
                await asyncio.sleep(0)
            if metered and turn % 10 == 0:  # as often as under load
                service.meter.flush(page, 0)
        used, requests = time.process_time_ns() - before, service.requests - done
        if requests != TURNS * CONNECTIONS * batch:
            raise SystemExit(f"{requests} requests were answered, not {TURNS * CONNECTIONS * batch}")
        best = min(best, used / requests / 1000)
    return best


def _requests(first: int, batch: int) -> bytes:
    """Return HEADERS frames of requests whose fields are all in the tables, as a client's second request is."""
    return b"".join(b"\0\0\4\1\5%b\x82\x86\x84\xbe" % (first + 2 * n).to_bytes(4, "big") for n in range(batch))


async def _measure_streams(batch: int, timings: int) -> float:
    """Return microseconds of CPU for a request over HTTP/2."""
    from aserver.config import Layer, build
    from aserver.protocol.service import Service

    app = importlib.import_module("hello").app
    config = build([Layer("micro", {"target": "hello:app", "proxy_headers": True, "http2": True})]).config
    service = Service(app, config, loop=asyncio.get_running_loop(), state={})
    make = service.protocol_factory(h2c=True)
    transports = [_Transport(make()) for _ in range(CONNECTIONS)]
    authority = b"\x82\x86\x84\x41\x0e127.0.0.1:8000"
    for transport in transports:
        transport.protocol.connection_made(transport)
        transport.protocol.data_received(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\4\x08\0\0\0\0\0\x7f\0\0\0"
            b"\0\0%c\1\5\0\0\0\1%b" % (len(authority), authority)
        )
    number = 3
    best = float("inf")
    for _ in range(timings):
        while service.active:
            await asyncio.sleep(0)
        pieces = [_requests(number + turn * 2 * batch, batch) for turn in range(TURNS)]
        number += TURNS * 2 * batch
        before, done = time.process_time_ns(), service.requests
        for piece in pieces:
            for transport in transports:
                transport.protocol.data_received(piece)
            while service.active:
                await asyncio.sleep(0)
        used, requests = time.process_time_ns() - before, service.requests - done
        if requests != TURNS * CONNECTIONS * batch:
            raise SystemExit(f"{requests} requests were answered, not {TURNS * CONNECTIONS * batch}")
        best = min(best, used / requests / 1000)
    return best


async def _measure_sockets(pieces: list[bytes], batch: int, timings: int) -> float:
    """Return microseconds of CPU for an echoed message."""
    from aserver.config import Layer, build
    from aserver.protocol.service import Service

    done = 0

    async def echo(_: Any, receive: Any, send: Any) -> None:
        nonlocal done
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if "bytes" in message:
                await send({"type": "websocket.send", "bytes": message["bytes"]})
            else:
                await send({"type": "websocket.send", "text": message["text"]})
            done += 1

    config = build([Layer("micro", {"target": "x:y"})]).config
    service = Service(echo, config, loop=asyncio.get_running_loop(), state={})
    make = service.protocol_factory()
    transports = [_Transport(make()) for _ in range(CONNECTIONS)]
    for transport in transports:
        transport.protocol.connection_made(transport)
        transport.protocol.data_received(_get(b"/", _UPGRADE))
    best = float("inf")
    for _ in range(timings):
        before, done = time.process_time_ns(), 0
        for turn in range(TURNS):
            piece = pieces[turn % len(pieces)]
            for transport in transports:
                transport.protocol.data_received(piece)
            while done < (turn + 1) * CONNECTIONS * batch:
                await asyncio.sleep(0)
        best = min(best, (time.process_time_ns() - before) / done / 1000)
    return best


def _measure_here(cases: list[str], timings: int) -> None:
    import uvloop

    known, sockets = _cases(), _socket_cases()
    found = {}
    for case in cases:
        if case in _STREAMS:
            measuring = _measure_streams(_STREAMS[case], timings)
        elif case in sockets:
            measuring = _measure_sockets(*sockets[case], timings)
        else:
            plain = known[(_LOGGED | _METERED).get(case, case)]
            measuring = _measure(*plain, timings, logged=case in _LOGGED, metered=case in _METERED)
        found[case] = uvloop.run(measuring)
    print(json.dumps(found))


def _measure_tree(tree: Path, cases: list[str], timings: int) -> dict[str, float]:
    # This file by its path, because the other checkout may have no bench.micro.
    code = f"import sys; sys.path[:0] = [{str(tree)!r}, {str(HERE.parent / 'apps')!r}]\n"
    code += f"import runpy; runpy.run_path({str(HERE)!r}, run_name='measured')['_measure_here']({cases!r}, {timings})"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=tree)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure the cases of the command line, and print a row for each."""
    known = [*_cases(), *_LOGGED, *_METERED, *_STREAMS, *_socket_cases()]
    parser = argparse.ArgumentParser(prog="python -m bench.micro")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {' '.join(known)}; all if none is named")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--timings", type=int, default=8, help="in a round")
    arguments = parser.parse_args()
    cases = arguments.cases or known
    here = HERE.parents[1]
    trees = [here] if arguments.against is None else [arguments.against.resolve(), here]
    best = [dict.fromkeys(cases, float("inf")) for _ in trees]
    for _ in range(arguments.rounds):
        for tree, found in zip(trees, best, strict=True):
            for case, microseconds in _measure_tree(tree, cases, arguments.timings).items():
                found[case] = min(found[case], microseconds)
    for case in cases:
        figures = [found[case] for found in best]
        ratio = f"  {figures[-1] / figures[0]:.3f}" if len(figures) > 1 else ""
        print(f"{case:16}" + "".join(f"{figure:8.2f}" for figure in figures) + ratio)


if __name__ == "__main__":
    main()
