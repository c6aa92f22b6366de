"""Scenarios that load a worker with wrk and measure CPU time per request.

Runs in the harness process.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import meter
from bench.load import h2load, wrk
from bench.machine import Processors, pinned, tool
from bench.scenarios.contract import Column, MeasureError, Outcome, Stage
from bench.servers import Address, Launch, Server, free_port

_COLUMNS = (
    Column("cpu_us", "CPU µs/request", 1),
    Column("rps", "requests/s", 0),
    Column("p50_ms", "p50 ms", 2),
    Column("p99_ms", "p99 ms", 2),
    Column("p999_ms", "p99.9 ms", 2),
    Column("pss_mb", "peak PSS MB", 0),
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load of wrk or h2load. The main figure is the CPU time of all processes of the server per request."""

    name: str
    title: str
    app: str = "hello:app"
    answer: str | None = None
    path: str = "/"
    body_size: int | None = 13
    connections: int = 64
    options: tuple[str, ...] = ()
    tls: bool = False
    nginx: bool = False
    access_log: bool = False
    upload: int = 0
    workers: int = 1
    columns: Sequence[Column] = _COLUMNS
    most_rounds: int = 99
    wsgi: bool = False
    streams: int = 0  # at once on each connection, by HTTP/2; 0: HTTP/1.1
    env: dict[str, str] = field(default_factory=dict)

    @property
    def tools(self) -> Sequence[str]:
        """wrk or h2load; nginx and openssl if they are needed."""
        return (
            "h2load" if self.streams else "wrk",
            *(("nginx",) if self.nginx else ()),
            *(("openssl",) if self.tls else ()),
        )

    def launch(self, stage: Stage) -> Launch:
        """Ask for the workers of the scenario, and for an access log only if that is measured."""
        log = None
        if self.access_log:
            log = Path("/dev/null") if stage.access_log == "null" else stage.directory / "access.log"
        return Launch(
            self.app,
            self.answer,
            self.workers,
            unix=self.nginx,
            tls=self.tls,
            http2=self.streams > 0,
            access_log=log,
            wsgi=self.wsgi,
            env=self.env,
        )

    def estimate(self, stage: Stage) -> float:
        """The time for load, warm-up, start and stop."""
        return stage.seconds + stage.warmup + 2.0

    def measure(self, stage: Stage, server: Server) -> Outcome:
        """See Scenario."""
        starter = stage.starter(self.workers)
        launch = self.launch(stage)
        with starter.start(server, launch) as running:
            start_ms = running.wait_ready(self.path)
            self._check(running.address)
            with _front(stage, running.address, starter.processors, enabled=self.nginx) as address:
                outcome = self._load(stage, address, starter.processors, running.pid)
        outcome.figures["start_ms"] = start_ms
        if self.access_log and stage.access_log != "null":
            self._check_log(running.output, outcome)
        return outcome

    def _check(self, address: Address) -> None:
        """Raise MeasureError if the server does not give the right answer: a fast wrong answer must not count."""
        method, body = ("POST", b"u" * self.upload) if self.upload else ("GET", b"")
        status, answer = address.exchange(self.path, method, body)
        if status != 200 or (self.body_size is not None and len(answer) != self.body_size):
            raise MeasureError(f"wrong answer: status {status}, {len(answer)} bytes instead of {self.body_size}")

    def _load(self, stage: Stage, address: Address, processors: Processors, pid: int) -> Outcome:
        peak = meter.memory(pid)

        def watch() -> None:
            nonlocal peak
            now = meter.memory(pid)
            peak = max(peak, now, key=lambda memory: memory.pss)

        def load(seconds: int) -> wrk.WrkResult:
            if self.streams:
                return h2load.run(
                    address.url(self.path),
                    seconds=seconds,
                    connections=self.connections,
                    streams=self.streams,
                    options=self._h2load_options(stage),
                    processors=processors,
                    watch=watch,
                )
            return wrk.run(
                address.url(self.path),
                seconds=seconds,
                connections=self.connections,
                options=self.options,
                processors=processors,
                watch=watch,
            )

        load(stage.warmup)
        before = meter.cpu_seconds(pid)
        result = load(stage.seconds)
        used = meter.cpu_seconds(pid) - before
        watch()
        if not result.requests:
            raise MeasureError(f"not one request was answered: {result.errors}")
        figures = {
            "cpu_us": used / result.requests * 1e6,
            "rps": result.requests / result.seconds,
            "p50_ms": result.p50,
            "p99_ms": result.p99,
            "p999_ms": result.p999,
            "pss_mb": peak.pss / 2**20,
            "rss_mb": peak.rss / 2**20,
            "busy": used / result.seconds,
            "requests": result.requests,
        }
        return Outcome(figures, dict(result.errors))

    def _h2load_options(self, stage: Stage) -> list[str]:
        if not self.upload:
            return list(self.options)
        body = stage.directory / "upload"
        body.write_bytes(b"u" * self.upload)
        return [*self.options, "-d", str(body)]

    def _check_log(self, log: Path, outcome: Outcome) -> None:
        """Count the lines, because a log that loses lines is cheap."""
        with log.open("rb") as file:
            lines = sum(1 for _ in file)
        # The file has the lines of the warm-up, too, so that a small loss is not found.
        if lines < outcome.figures["requests"] * 0.99:
            outcome.errors["log lines missing"] = int(outcome.figures["requests"]) - lines


_NGINX = """
worker_processes 1; daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {directory}/nginx-body; proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-f; uwsgi_temp_path {directory}/nginx-u; scgi_temp_path {directory}/nginx-s;
  upstream app {{ server unix:{unix}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    keepalive_requests 1000000;
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""


@contextmanager
def _front(stage: Stage, address: Address, processors: Processors, *, enabled: bool) -> Iterator[Address]:
    """Put nginx in front of a unix socket. It runs on the load's CPUs, so that only the server is measured."""
    if not enabled:
        yield address
        return
    port = free_port()
    config = stage.directory / "nginx.conf"
    config.write_text(_NGINX.format(directory=stage.directory, unix=address.unix, port=port))
    # If root starts nginx, it serves as the user `nobody`, which may not enter the work directory.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    command = [tool("nginx"), "-c", str(config), "-p", str(stage.directory), *user]
    with pinned(processors.load):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        front = Address(port=port)
        _wait(process, front)
        yield front
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", address: Address) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            address.connect(1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise MeasureError("nginx did not start; see nginx-error.log in the work directory (--keep)") from None
            time.sleep(0.02)
        else:
            return


# The headers of a desktop browser, as in wrk.lua, but of another browser, and none of HTTP/1's connections.
_BROWSER = (
    "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "accept-encoding: gzip, deflate, br, zstd",
    "accept-language: en-US,en;q=0.9,de;q=0.8",
    "cache-control: max-age=0",
    "cookie: session=4f6a1b2c3d4e5f60718293a4b5c6d7e8; theme=dark; consent=1",
    "referer: https://example.org/products/list?page=2",
    "sec-fetch-dest: document",
    "sec-fetch-mode: navigate",
    "sec-fetch-site: same-origin",
    "upgrade-insecure-requests: 1",
    "priority: u=0, i",
)
# h2load prints no percentiles.
_H2_COLUMNS = tuple(column for column in _COLUMNS if column.key in {"cpu_us", "rps", "pss_mb"})

LOADS = (
    # First, because clients of a real service do not repeat a request, and some servers remember repeated requests.
    Load(
        name="headers-varied",
        title="Hello world, 12 browser headers; the query and one of them differ at each request",
        answer="hello:app",
        options=("varied=1",),
    ),
    Load(name="hello", title="Hello world, raw ASGI, 64 keep-alive connections", answer="hello:app"),
    Load(
        name="metrics",
        title="The same without metrics, which aserver counts unless told otherwise",
        answer="hello:app",
        env={"ASERVER_METRICS": "off"},
    ),
    Load(
        name="headers",
        title="Hello world with 12 browser headers",
        answer="hello:app",
        options=("browser=1",),
    ),
    Load(name="access-log", title="Hello world with the access log on", access_log=True),
    Load(
        name="fastapi",
        title="FastAPI: path and query parameter, JSON from a model",
        app="fast:app",
        path="/items/7?q=x",
        body_size=None,
    ),
    Load(
        name="post-64k",
        title="POST of 64 KB, read to the end",
        app="bodies:app",
        answer="bodies:upload",
        path="/upload",
        body_size=5,
        upload=65536,
        options=("upload=65536",),
        connections=32,
    ),
    Load(
        name="blob-1m",
        title="1 MB response in one piece",
        app="bodies:app",
        answer="bodies:blob",
        path="/blob",
        body_size=2**20,
        connections=16,
    ),
    Load(
        name="stream-100",
        title="Response streamed in 100 chunks of 1 KB",
        app="bodies:app",
        path="/stream",
        body_size=100 * 1024,
        connections=32,
    ),
    Load(
        name="connect",
        title="A new connection for each request",
        answer="hello:app",
        options=("close=1",),
    ),
    Load(
        name="pipeline-16",
        title="Pipelined, 16 deep",
        answer="hello:app",
        options=("pipeline=16",),
        # Without latencies, because wrk times a whole batch here.
        columns=tuple(column for column in _COLUMNS if not column.key.startswith("p")) + _COLUMNS[-1:],
        connections=16,
    ),
    Load(name="wsgi-hello", title="WSGI: hello world", app="wsgi_hello:app", wsgi=True),
    Load(name="wsgi-flask", title="WSGI: hello world by Flask", app="flask_hello:app", wsgi=True),
    Load(name="tls", title="Hello world over TLS, keep-alive", answer="hello:app", tls=True),
    Load(name="nginx-unix", title="Behind nginx on a unix socket", nginx=True),
    Load(name="h2-hello", title="HTTP/2: one stream at a time", streams=1, connections=16, columns=_H2_COLUMNS),
    Load(name="h2-10", title="HTTP/2: ten streams at a time", streams=10, connections=16, columns=_H2_COLUMNS),
    Load(
        name="h2-headers",
        title="HTTP/2: ten streams with 12 browser headers",
        streams=10,
        connections=16,
        options=tuple(part for line in _BROWSER for part in ("-H", line)),
        columns=_H2_COLUMNS,
    ),
    Load(
        name="h2-tls", title="HTTP/2 over TLS: ten streams", streams=10, connections=16, tls=True, columns=_H2_COLUMNS
    ),
    Load(
        name="h2-post",
        title="HTTP/2: POST of 64 KB, read to the end",
        app="bodies:app",
        path="/upload",
        body_size=5,
        upload=65536,
        streams=4,
        connections=16,
        columns=_H2_COLUMNS,
    ),
    # The cost of more workers: the same load, on all CPUs without the load's.
    Load(name="workers-2", title="Hello world, 2 workers", workers=2),
    Load(name="workers-4", title="Hello world, 4 workers", workers=4),
)
