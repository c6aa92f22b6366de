"""The demo app under the real command: what a newcomer sees first has to work."""

import hashlib
import json
from collections.abc import Callable

import pytest

from tests.harness import ServerProcess

pytestmark = pytest.mark.process


def test_every_route(server: Callable[..., ServerProcess]) -> None:
    """Each link on the page works, and the page names the worker that made it."""
    running = server("aserver.command.demo:app", "--workers", "2")
    body = bytes(range(256)) * 4096
    with running.connect() as connection:
        page = connection.request("/")
        assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
        facts = json.loads(connection.request("/state").body)
        assert int(facts["worker pid"]) in {worker.pid for worker in running.workers()}
        assert f"<td>{facts['worker pid']}" in page.text, "one connection, one worker"
        assert facts["event loop"].startswith("uvloop")
        assert "up for" in facts, "lifespan's state reaches the scope"
        assert connection.request("/hello").body == b"Hello, world!\n"
        assert connection.request("/echo", method="POST", body=body).body == body
        receipt = json.loads(connection.request("/upload", method="PUT", body=body).body)
        assert receipt == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        assert connection.request("/stream").text.count("\n") == 10
        assert connection.request("/slow?seconds=0.01").text == "Slept for 0.01 s.\n"
        assert connection.request("/slow?seconds=later").status == 400
        assert connection.request("/nothing").status == 404
    assert running.stop() == 0
    assert "Traceback" not in running.log


def test_echo_streams(server: Callable[..., ServerProcess]) -> None:
    """The answer begins before the request has ended."""
    running = server("aserver.command.demo:app")
    with running.connect() as connection:
        connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        assert connection.read_head().status == 200
        seen = b""
        while b"part" not in seen:
            seen += connection.read_some()
        connection.send(b"0\r\n\r\n")
        while not seen.endswith(b"0\r\n\r\n"):
            seen += connection.read_some()
