"""Scenarios about WebSockets: CPU time per echoed message, memory of idle sockets.

Runs in the harness process.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import meter
from bench.load.tunnel import open_stream
from bench.load.websocket import PING, SocketError, answer_pings, echo, head, open_socket, receive
from bench.machine import pinned
from bench.scenarios.contract import Column, MeasureError, Outcome, Stage
from bench.servers import Launch, Server


@dataclass(frozen=True, kw_only=True)
class Echoes:
    """Binary messages of the same size, which the server echoes. Each connection waits for an echo before the next."""

    name: str
    title: str
    size: int
    connections: int
    http2: bool = False  # each WebSocket on a stream (RFC 8441) of a connection of its own
    columns: Sequence[Column] = (
        Column("cpu_us", "CPU µs/message", 1),
        Column("rps", "messages/s", 0),
        Column("p50_ms", "p50 ms", 2),
        Column("p99_ms", "p99 ms", 2),
    )
    most_rounds: int = 99
    tools: Sequence[str] = ()

    def launch(self, stage: Stage) -> Launch:
        """Ask for a single worker without an access log."""
        del stage
        return Launch("sockets:app", http2=self.http2)

    def estimate(self, stage: Stage) -> float:
        """The time for load, warm-up, start and stop."""
        return stage.seconds + stage.warmup + 2.0

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """See Scenario."""
        starter = stage.starter()
        with starter.start(server, self.launch(stage)) as running:
            start_ms = running.wait_ready("/")
            try:
                with (
                    pinned(starter.processors.load),
                    echo(
                        running.address,
                        connections=self.connections,
                        size=self.size,
                        connect=open_stream if self.http2 else open_socket,
                    ) as sockets,
                ):
                    sockets.run(stage.warmup)
                    before = meter.cpu_seconds(running.pid)
                    result = sockets.run(stage.seconds)
                    used = meter.cpu_seconds(running.pid) - before
            except (SocketError, OSError) as error:
                raise MeasureError(str(error)) from error
        return Outcome(
            {
                "cpu_us": used / result.messages * 1e6,
                "rps": result.messages / result.seconds,
                "p50_ms": result.p50,
                "p99_ms": result.p99,
                "busy": used / result.seconds,
                "requests": result.messages,
                "start_ms": start_ms,
            }
        )


@dataclass(frozen=True, kw_only=True)
class IdleSockets:
    """Many WebSockets, idle after an echo on each. The figure does not include kernel buffers."""

    name: str = "ws-idle-10k"
    title: str = "10,000 idle WebSockets"
    connections: int = 10_000
    columns: Sequence[Column] = (
        Column("kb", "KB/socket", 2),
        Column("pss_mb", "PSS MB", 0),
        Column("idle_cpu_ms", "CPU ms/s while idle", 2),
    )
    most_rounds: int = 3
    tools: Sequence[str] = ()

    def launch(self, stage: Stage) -> Launch:
        """Ask for a single worker."""
        del stage
        return Launch("sockets:app")

    def estimate(self, stage: Stage) -> float:
        """The time to open 2000 connections a second, and to watch them."""
        return self.connections / 2000 + stage.seconds + 3.0

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """See Scenario."""
        starter = stage.starter()
        held: list[socket.socket] = []
        with starter.start(server, self.launch(stage)) as running:
            running.wait_ready("/")

            def hold() -> None:
                held.append(open_socket(running.address))
                if not _echoes(held[-1]):
                    raise SocketError("no echo")

            try:
                with pinned(starter.processors.load):
                    # The server's first allocations belong to no connection. These connections cause them.
                    for _ in range(200):
                        hold()
                    before = meter.memory(running.pid).pss
                    for number in range(self.connections):
                        hold()
                        if number % 500 == 0:
                            answer_pings(held)
                    after = meter.memory(running.pid).pss
                    used = meter.cpu_seconds(running.pid)
                    for _ in range(stage.seconds):
                        time.sleep(1)
                        answer_pings(held)
                    idle = (meter.cpu_seconds(running.pid) - used) / stage.seconds * 1000
                    answer_pings(held)
                    dead = sum(not _alive(sock) for sock in held[::100])
            except (SocketError, OSError) as error:
                raise MeasureError(f"after {len(held)} sockets: {error}") from error
            finally:
                for sock in held:
                    sock.close()
        errors = {"idle sockets closed (of 102 tried)": dead} if dead else {}
        figures = {"kb": (after - before) / self.connections / 1024, "pss_mb": after / 2**20, "idle_cpu_ms": idle}
        return Outcome(figures, errors)


def _echoes(sock: socket.socket) -> bool:
    payload = b"twelve bytes"
    sock.sendall(head(len(payload), 0x80) + b"\0\0\0\0" + payload)
    answer = head(len(payload)) + payload
    got = receive(sock, len(answer))
    while got[:1] == PING:  # a ping may come before the echo
        length = 2 + got[1]
        got = got[length:] + receive(sock, length)
    return got == answer


def _alive(sock: socket.socket) -> bool:
    try:
        return _echoes(sock)
    except (SocketError, OSError):
        return False


SOCKETS = (
    Echoes(name="ws-64", title="WebSocket echo, 64 bytes, 32 connections", size=64, connections=32),
    Echoes(name="h2-ws", title="WebSocket on HTTP/2: 64 bytes, 32 connections", size=64, connections=32, http2=True),
    Echoes(name="ws-64k", title="WebSocket echo, 64 KB, 8 connections", size=65536, connections=8),
    IdleSockets(),
)
