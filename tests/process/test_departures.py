"""Clients that leave, and streams at a stop: what that does to applications in real frameworks.

The frameworks' streams are tests/apps/endless.py. What is right was seen on uvicorn, which fails in one point: it logs
an error for a client that leaves in the middle of an upload.
"""

import re
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Notes, RawConnection, ServerProcess
from tests.harness.certificates import Authority
from tests.harness.proxies import nginx

pytestmark = pytest.mark.process

APP = "tests.apps.endless:app"
Start = Callable[..., ServerProcess]

#: Each with whether it has a background task behind its stream.
STREAMS = {
    "starlette/stream": True,
    "starlette/quiet": True,
    "layered/stream": True,
    "layered/quiet": True,
    "fastapi/stream": True,
    "sse/stream": True,
    "litestar/stream": False,
    "quart/stream": False,
    "django/endless": False,
}
#: Seconds from `docker stop`, and others, to SIGKILL.
DOCKER_STOP = 10.0


def open_stream(connection: RawConnection, path: str) -> None:
    """Ask for a stream, and read the first of it."""
    connection.send(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    seen = b""
    while b"tick" not in seen:
        seen += connection.read_some()


def leave(connection: RawConnection, *, reset: bool = False) -> None:
    """Close; with a reset as a client does that did not read everything."""
    if reset:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sock.close()


def check_silence(running: ServerProcess) -> None:
    """Nothing in the log that would wake an operator."""
    assert not re.search(r"Traceback|ERROR|WARNING|never retrieved", running.log), running.log


def test_a_stream_whose_client_has_left_is_ended(server: Start, tmp_path: Path) -> None:
    """In each framework, by FIN and by RST; background tasks run, and the log is silent.

    Fails with spec_version 2.5 (Starlette's "quiet" streams go on), and with an exception from the first
    `send()` in Parting.take (no background tasks behind middleware).
    """
    notes = Notes(tmp_path)
    running = server(APP, env=notes.env)
    for path in STREAMS:
        for reset in (False, True):
            connection = running.connect()
            open_stream(connection, path)
            leave(connection, reset=reset)
    for path, background in STREAMS.items():
        name = path.partition("/")[0]
        count = 2 * sum(each.startswith(f"{name}/") for each in STREAMS)
        running.wait_for(lambda name=name, count=count: notes.of("ended").count(name) == count, what=f"{name} to end")  # type: ignore[misc]
        if background:
            running.wait_for(
                lambda name=name, count=count: notes.of("background").count(name) == count,  # type: ignore[misc]
                what=f"the background tasks of {name}",
            )
    (worker,) = running.workers()
    running.wait_for(lambda: not _connections(worker.pid, running), what="the worker to close the connections")
    assert running.stop() == 0
    check_silence(running)


def _connections(pid: int, running: ServerProcess) -> list[str]:
    """The connections to the server's port that a process holds, in any state."""
    assert isinstance(running.where, tuple)
    port = f":{running.where[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{each[9]}]" for each in lines if each[1].endswith(port) and each[3] != "0A"}
    held = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    return sorted(sockets & held)


def test_a_stream_over_tls_is_ended(server: Start, tmp_path: Path) -> None:
    notes, authority = Notes(tmp_path), Authority(tmp_path)
    running = server(APP, *authority.issue("localhost", "127.0.0.1").options, env=notes.env)
    for reset in (False, True):
        connection = RawConnection(running.where, tls=authority.client())
        open_stream(connection, "layered/quiet")
        leave(connection, reset=reset)
    running.wait_for(lambda: len(notes.of("background")) == 2, what="both streams to end")
    assert running.stop() == 0
    check_silence(running)


NGINX = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{upstream}; proxy_buffering off; }} }}"


@pytest.mark.external
@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_a_stream_behind_nginx_is_ended(server: Start, tmp_path: Path, over: str) -> None:
    notes = Notes(tmp_path)
    path = tmp_path / "a.sock"
    running = server(APP, bind=[f"unix:{path}" if over == "unix" else "127.0.0.1:0"], env=notes.env)
    upstream = f"unix:{path}" if over == "unix" else f"127.0.0.1:{running.where[1]}"
    with nginx(tmp_path, NGINX, upstream=upstream) as port:
        for reset in (False, True):
            connection = RawConnection(("127.0.0.1", port))
            open_stream(connection, "layered/quiet")
            leave(connection, reset=reset)
        running.wait_for(lambda: len(notes.of("background")) == 2, what="both streams to end")
    assert running.stop() == 0
    check_silence(running)


def test_an_order_whose_client_has_left_is_placed(server: Start, tmp_path: Path) -> None:
    """A transaction is committed and tasks are run, by FIN and by RST, behind FastAPI's `@app.middleware`.

    Fails with an exception for an answer that comes whole: the dependency rolls back.
    """
    notes = Notes(tmp_path)
    running = server(APP, "--disconnect-grace", "0", env=notes.env)
    for count, reset in enumerate((False, True), 1):
        connection = running.connect()
        connection.send(b"POST /fastapi/order HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        running.wait_for(lambda count=count: len(notes.of("open")) == count, what="the order")  # type: ignore[misc]
        leave(connection, reset=reset)
    running.wait_for(lambda: len(notes.of("commit")) == len(notes.of("background")) == 2, what="both to be done")
    assert not notes.of("rollback")
    assert running.stop() == 0
    check_silence(running)


@pytest.mark.parametrize("name", ["starlette", "layered", "handled"])
def test_an_upload_whose_client_has_left_is_no_error(server: Start, tmp_path: Path, name: str) -> None:
    """Starlette raises ClientDisconnect, which an application may handle (to no avail: there is no client).

    Fails without `is_disconnect` in Exchange._failed, as uvicorn does.
    """
    notes = Notes(tmp_path)
    running = server(APP, env=notes.env)
    connection = running.connect()
    head = f"POST /{name}/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
    connection.send(head.encode() + b"abc")
    running.wait_for(lambda: notes.of("open"), what="the upload")
    leave(connection)
    running.wait_log(rf"POST /{name}/upload")  # the access log's line
    if name == "handled":
        running.wait_for(lambda: notes.of("ended"), what="the handler")
    assert running.stop() == 0
    assert not notes.of("fault")
    check_silence(running)


def test_a_deaf_stream_is_cancelled_after_disconnect_grace(server: Start, tmp_path: Path) -> None:
    """One line says so. Fails without the sweep of `abandoned`."""
    notes = Notes(tmp_path)
    running = server(APP, "--disconnect-grace", "0.5", env=notes.env)
    connection = running.connect()
    open_stream(connection, "deaf/x")
    leave(connection)
    running.wait_for(lambda: notes.of("ended") == ["deaf"], what="the stream to be cancelled")
    running.wait_log(r"INFO +request cancelled, its client has gone: GET /deaf/x, \d\.\d s")
    assert running.stop() == 0
    check_silence(running)


# ── a final stop ─────────────────────────────────────────────────────────────────────────────

HANDSHAKE = (
    b"GET /deaf/socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("before", ["serving", "draining"])
def test_streams_do_not_hold_up_docker_stop(server: Start, tmp_path: Path, before: str) -> None:
    """A tab with server-sent events, quiet streams, and applications and clients that do not look at anything.

    Lifespan shutdown runs. Fails without ServerDrain._end_idle_and_streams; when it was draining already (a reload
    before), without `self.final or` in ServerDrain.run.
    """
    notes = Notes(tmp_path)
    running = server(APP, env=notes.env)
    open_before = [running.connect() for _ in range(5)]
    for connection, path in zip(open_before, ("sse/stream", "layered/quiet", "deaf/x", "fastapi/stream"), strict=False):
        open_stream(connection, path)
    open_before[-1].send(HANDSHAKE)
    running.wait_for(lambda: notes.of("open").count("deaf") == 2, what="the WebSocket")
    if before == "draining":
        running.signal(signal.SIGHUP)
        running.wait_log("generation 2 serves")
    assert running.stop(DOCKER_STOP) == 0
    for name in ("sse", "layered", "deaf", "fastapi"):
        assert name in notes.of("ended")
    assert notes.of("ended").count("deaf") == 2
    assert len([line for line in notes.lines if line == "shutdown"]) == 1 + (before == "draining")
    check_silence(running)
    for connection in open_before:
        connection.close()
