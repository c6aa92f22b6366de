"""Scenarios about memory: idle connections, and workers of an app with much data.

Runs in the harness process.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import meter
from bench.machine import pinned
from bench.scenarios.contract import Column, MeasureError, Outcome, Stage
from bench.servers import Address, Launch, Running, Server

_REQUEST = b"GET / HTTP/1.1\r\nHost: bench.local\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Idle:
    """Many keep-alive connections, idle after a request on each. The figure does not include kernel buffers."""

    name: str = "idle-10k"
    title: str = "10,000 idle keep-alive connections"
    connections: int = 10_000
    columns: Sequence[Column] = (
        Column("kb", "KB/connection", 2),
        Column("pss_mb", "PSS MB", 0),
        Column("idle_cpu_ms", "CPU ms/s while idle", 2),
    )
    most_rounds: int = 3
    tools: Sequence[str] = ()

    def launch(self, stage: Stage) -> Launch:
        """Ask for a single worker."""
        del stage
        return Launch("hello:app")

    def estimate(self, stage: Stage) -> float:
        """The time to open 3000 connections a second, and to watch them."""
        return self.connections / 3000 + stage.seconds + 3.0

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """See Scenario."""
        starter = stage.starter()
        outcome = Outcome()
        held: list[socket.socket] = []
        with starter.start(server, self.launch(stage)) as running:
            running.wait_ready("/")
            try:
                with pinned(starter.processors.load):
                    # The server's first allocations belong to no connection. These connections cause them.
                    held.extend(_asked_once(running.address) for _ in range(200))
                    before = meter.memory(running.pid).pss
                    held.extend(_asked_once(running.address) for _ in range(self.connections))
                    after = meter.memory(running.pid).pss
                    outcome.figures["idle_cpu_ms"] = _idle_cpu(running, stage.seconds)
                    dead = sum(not _answers(sock) for sock in held[::100])
            except OSError as error:
                raise MeasureError(f"after {len(held)} connections: {error}") from error
            finally:
                for sock in held:
                    sock.close()
        if dead:
            outcome.errors["idle connections closed (of 102 tried)"] = dead
        outcome.figures["kb"] = (after - before) / self.connections / 1024
        outcome.figures["pss_mb"] = after / 2**20
        return outcome


def _asked_once(address: Address) -> socket.socket:
    sock = address.connect()
    if not _answers(sock):
        raise OSError("a fresh connection was closed without an answer")
    return sock


def _answers(sock: socket.socket) -> bool:
    try:
        sock.sendall(_REQUEST)
        received = b""
        while not received.endswith(b"Hello, world!"):
            more = sock.recv(4096)
            if not more:
                return False
            received += more
    except (ConnectionError, TimeoutError):
        return False
    return True


def _idle_cpu(running: Running, seconds: int) -> float:
    before = meter.cpu_seconds(running.pid)
    time.sleep(seconds)
    return (meter.cpu_seconds(running.pid) - before) / seconds * 1000


@dataclass(frozen=True, kw_only=True)
class WorkerMemory:
    """Workers of a FastAPI app with 100 MB of data, after requests and a full collection in each.

    The main figure is the median PSS of the worker processes: a worker's own pages, and its share of pages that several
    processes have. The tree's PSS includes the master and helpers. A server that cannot preload is measured without it.
    """

    name: str
    title: str
    loading: str
    workers: int = 4
    columns: Sequence[Column] = (
        Column("worker_mb", "PSS MB of a worker", 1),
        Column("pss_mb", "PSS MB of the tree/workers", 1),
        Column("private_mb", "private MB in a worker", 1),
        Column("rss_mb", "RSS MB in a worker", 1),
        Column("tree_mb", "PSS MB of the tree", 0),
        Column("start_ms", "start ms", 0),
    )
    most_rounds: int = 2
    tools: Sequence[str] = ()

    def launch(self, stage: Stage) -> Launch:
        """Ask for the workers, with preloading or without."""
        del stage
        return Launch("heavy:app", workers=self.workers, loading=self.loading)

    def estimate(self, stage: Stage) -> float:
        """The time for imports of 100 MB on 1 or 2 CPUs, and as many collections."""
        del stage
        return 3.0 * self.workers

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """See Scenario."""
        starter = stage.starter(self.workers)
        with starter.start(server, self.launch(stage)) as running:
            start_ms = running.wait_ready("/record/1")
            pids = self._meet_all(running)
            whole = meter.memory(running.pid).pss
            sizes = [meter.parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids]
        private = sorted(size["Private_Clean"] + size["Private_Dirty"] for size in sizes)
        proportional = sorted(size["Pss"] for size in sizes)
        resident = sorted(size["Rss"] for size in sizes)
        outcome = Outcome(
            {
                "worker_mb": proportional[len(proportional) // 2] / 2**20,
                "pss_mb": whole / self.workers / 2**20,
                "private_mb": private[len(private) // 2] / 2**20,
                "rss_mb": resident[len(resident) // 2] / 2**20,
                "tree_mb": whole / 2**20,
                "start_ms": start_ms,
            }
        )
        if self.loading not in server.options:
            outcome.notes.append(f"has no {self.loading}")
        return outcome

    def _meet_all(self, running: Running) -> list[int]:
        """Send requests until each worker has collected its garbage and answered. Raises MeasureError.

        Several connections are opened at once: the same worker would accept most of them if they came in turn.
        """
        met: set[int] = set()
        deadline = time.monotonic() + 60
        while len(met) < self.workers:
            if time.monotonic() > deadline:
                raise MeasureError(f"met only {len(met)} of {self.workers} workers within 60 s")
            for path in ("/collect", "/record/5"):
                socks = [running.address.connect(60) for _ in range(16)]
                for sock in socks:
                    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench.local\r\nConnection: close\r\n\r\n".encode())
                bodies = [_read_all(sock) for sock in socks]
                if path == "/collect":
                    met.update(_pid(body) for body in bodies)
        return sorted(met)


def _read_all(sock: socket.socket) -> bytes:
    with sock:
        received = b""
        while more := sock.recv(65536):
            received += more
    return received


def _pid(answer: bytes) -> int:
    """Read the process id, `{"pid":123...`, from an answer with its head and framing."""
    _, found, rest = answer.partition(b'"pid":')
    if not found:
        raise MeasureError(f"unexpected answer: {answer[:100]!r}")
    digits = rest.lstrip()
    return int(digits[: next(index for index, byte in enumerate(digits) if not chr(byte).isdigit())])


MEMORIES = (
    Idle(),
    WorkerMemory(name="memory-preload", title="4 workers, FastAPI with 100 MB of data, preloaded", loading="preload"),
    WorkerMemory(
        name="memory-8", title="8 workers, FastAPI with 100 MB of data, preloaded", loading="preload", workers=8
    ),
    WorkerMemory(name="memory-lazy", title="4 workers, FastAPI with 100 MB of data, loaded by each", loading="lazy"),
)
