"""HTTP/2 of the real server: real clients, real proxies in front, and no stream lost to a planned event."""

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.harness import ServerProcess, free_port, require_tool
from tests.harness.certificates import Authority
from tests.harness.proxies import nginx, running
from tests.harness.waiting import PATIENCE
from tests.protocol.http2.strict import StrictClient
from tests.protocol.serving import Client

pytestmark = [pytest.mark.process]

Start = Callable[..., ServerProcess]

H2C = ("h2c://127.0.0.1:0",)


def run(*command: str) -> str:
    done = subprocess.run(
        [require_tool(command[0]), *command[1:]], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.external
def test_real_clients(server: Start, tmp_path: Path) -> None:
    """curl, nghttp and httpx; over TLS by ALPN, in the clear by prior knowledge; HTTP/1.1 on the same addresses."""
    authority = Authority(tmp_path)
    pair = authority.issue("localhost", "127.0.0.1")
    started = server("tests.apps.seen:app", *pair.options, bind=["127.0.0.1:0", *H2C])
    tls, clear = (each.url for each in started.addresses)
    trust = ("--cacert", str(authority.file))
    for versions, command in (
        ("2", ("--http2", *trust, tls)),
        ("1.1", ("--http1.1", *trust, tls)),
        ("2", ("--http2-prior-knowledge", clear)),
        ("1.1", ("--http1.1", clear)),
        ("1.1", ("--http2", clear)),  # offers `Upgrade: h2c`, which is not taken
    ):
        told = json.loads(run("curl", "-sS", "--data-binary", "@" + __file__, *command))
        assert (told["http_version"], told["size"]) == (versions, Path(__file__).stat().st_size), command
        assert told["scheme"] == ("https" if tls in command else "http")
    assert json.loads(run("nghttp", "--no-dep", clear))["http_version"] == "2"
    with httpx.Client(http2=True, verify=authority.client()) as client:
        for body in (b"", b"x" * 300_000):
            answer = client.post(tls, content=body, headers={"x-a": "b"})
            assert answer.http_version == "HTTP/2"
            assert (answer.json()["http_version"], answer.json()["size"]) == ("2", len(body))
    assert re.search(r'"POST / HTTP/2" 200 ', started.log)


HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    option forwardfor
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server one {upstream} proto h2
"""

NGINX = """
    server {{
        listen 127.0.0.1:{port};
        http2 on;
        location / {{
            grpc_pass grpc://{upstream};
            grpc_set_header X-Forwarded-For $remote_addr;
        }}
    }}
"""


@pytest.mark.external
def test_behind_haproxy_and_nginx(server: Start, tmp_path: Path) -> None:
    """HAProxy with `proto h2`, and nginx with `grpc_pass`: a gRPC-shaped exchange with trailers."""
    started = server("tests.apps.grpc:app", bind=H2C)
    upstream = f"127.0.0.1:{started.where[1]}"
    port, config = free_port(), tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(upstream=upstream, port=port))
    with running([require_tool("haproxy"), "-db", "-f", str(config)], port, tmp_path):
        for _ in range(3):
            got = httpx.post(f"http://127.0.0.1:{port}/a", content=b"x" * 100_000)
            assert (got.status_code, got.text) == (200, "2 100000 127.0.0.1")
    http2 = "listen 127.0.0.1:{port} http2;"  # before nginx 1.25.1
    config_of_nginx = NGINX.replace("listen 127.0.0.1:{port};", http2).replace("        http2 on;\n", "")
    with nginx(tmp_path, config_of_nginx, upstream=upstream) as port:

        async def call() -> None:
            client = await connect(("127.0.0.1", port))
            fields = [("te", "trailers"), ("content-type", "application/grpc")]
            for _ in range(3):
                got = await client.get("/service/method", "POST", fields, b"x" * 10_000)
                assert (got.status, got.body) == (200, b"2 10000 127.0.0.1")
                assert dict(got.trailers)[b"grpc-status"] == b"0"
            client.client.close()

        asyncio.run(call())


async def connect(where: object) -> StrictClient:
    assert isinstance(where, tuple)
    return await StrictClient(Client(*await asyncio.open_connection(*where))).begin()


class Visitors:
    """Strict clients, each with five streams at a time, that begin no stream after a GOAWAY."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.answered = 0
        self.connections = 0
        self.stopping = False

    async def visit(self) -> None:
        while not self.stopping:
            client = await connect(self.server.where)
            self.connections += 1
            under_way: set[int] = set()
            while not (client.closed and not under_way):
                assert not client.closed, f"closed with {len(under_way)} streams under way, {client.goaways}"
                if not client.goaways:
                    under_way |= {client.ask("/slow?0.01") for _ in range(5 - len(under_way))}
                await client.flush()
                await client.read()
                for number in [each for each in under_way if client.answers[each].over]:
                    answer = client.answers.pop(number)
                    assert (answer.ended, answer.body) == (True, b"slept"), answer
                    under_way.remove(number)
                    self.answered += 1
            client.client.close()

    async def until(self, pattern: str, count: int) -> None:
        while len(re.findall(pattern, self.server.log)) < count:
            await asyncio.sleep(0.02)


def test_no_stream_is_lost_to_a_recycle_a_reload_or_the_stop(server: Start) -> None:
    """Clients with streams under way at each moment. Fails with one GOAWAY only, or a `_part` that ends streams."""
    limits = ("--workers", "2", "--max-requests", "100", "--min-lifetime", "0", "--no-access-log")
    started = server("tests.apps.raw:app", *limits, bind=H2C)
    visitors = Visitors(started)

    async def all_of_it() -> None:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(visitors.visit())
            await visitors.until("has left after", 2)  # recycled
            started.signal(signal.SIGHUP)
            await visitors.until(r"generation 2, pid \d+\) is ready", 2)
            await visitors.until(r"generation 1, pid \d+\) has left after", 2)
            visitors.stopping = True
            started.terminate()

    asyncio.run(all_of_it())
    assert started.wait_exit() == 0
    assert visitors.answered > 200
    assert visitors.connections > 4


@pytest.mark.external
def test_h2load_gets_an_answer_to_every_stream_that_was_begun(server: Start) -> None:
    """Through recycles. It calls failed what it would have begun, so the server's count of answers is compared.

    It takes no notice of what is under way when its second is over: ten streams on each of eight connections.
    """
    limits = ("--workers", "2", "--max-requests", "500", "--min-lifetime", "0")
    started = server("tests.apps.raw:app", *limits, bind=H2C)
    said = run("h2load", "-D", "1", "-c", "8", "-m", "10", started.url)
    succeeded = re.search(r"(\d+) succeeded", said)
    assert succeeded is not None
    assert started.stop() == 0
    assert "has left after" in started.log
    assert 0 <= len(re.findall(r'"GET / HTTP/2" 200 ', started.log)) - int(succeeded[1]) <= 80
