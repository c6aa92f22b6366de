"""WebSockets under the real command: other people's clients and frameworks, the log, and a worker that must go."""

import asyncio
import json
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wsproto
import wsproto.events
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from aserver.protocol.transport import connection
from tests.harness import PATIENCE, Notes, ServerProcess
from tests.harness.certificates import Authority

pytestmark = pytest.mark.process

Start = Callable[..., ServerProcess]
FRAMEWORKS = "tests.apps.ws_frameworks:app"
ECHO = "tests.apps.ws_echo:app"


def dial(server: ServerProcess, path: str = "/", **more: Any) -> ClientConnection:
    assert isinstance(server.where, tuple)
    options: dict[str, Any] = {
        "open_timeout": PATIENCE,
        "close_timeout": PATIENCE,
        "max_size": None,
        "proxy": None,
    } | more
    scheme = "wss" if "ssl" in more else "ws"
    made: ClientConnection = connect(f"{scheme}://{server.where[0]}:{server.where[1]}{path}", **options)
    return made


def refused(server: ServerProcess, path: str) -> Any:
    """The HTTP response to a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        dial(server, path)
    return caught.value.response


def test_fastapi_and_starlette(server: Start, tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    running = server(FRAMEWORKS, env=notes.env)
    with dial(running, "/items/lamp?token=abc", subprotocols=["xml", "json"]) as client:
        assert client.subprotocol == "json"
        assert client.response is not None
        assert client.response.headers["x-token"] == "abc"
        for number in range(50):
            client.send(json.dumps({"n": number, "text": "é" * number}))
            assert json.loads(client.recv(PATIENCE)) == {"name": "lamp", "got": {"n": number, "text": "é" * number}}
        client.close(4001, "enough")
    with dial(running, "/shout") as client:
        client.send("quiet")
        assert client.recv(PATIENCE) == "QUIET"
    with dial(running, "/chunks") as client:
        for size in (0, 1, 125, 126, 65535, 65536, 3_000_000):
            data = bytes(range(256)) * (size // 256) + bytes(size % 256)
            client.send(data)
            assert client.recv(PATIENCE) == data[::-1]
        client.send([b"frag", b"ment"])
        assert client.recv(PATIENCE) == b"tnemgarf"
    running.wait_for(lambda: len(notes.lines) == 3, what="three notes")
    assert notes.lines == ["disconnect 4001 enough", "left with 1000", "iteration ended"]
    assert running.fetch("/").body == b'"http beside"'


def test_denials(server: Start) -> None:
    running = server(FRAMEWORKS)
    assert refused(running, "/items/lamp").status_code == 403
    response = refused(running, "/denied")
    assert (response.status_code, response.body) == (410, b"sold out")
    response = refused(running, "/http-exception")
    assert (response.status_code, json.loads(response.body)) == (401, {"detail": "who are you?"})
    assert refused(running, "/nowhere").status_code == 403
    running.wait_log(r'"GET /denied HTTP/1\.1" 410 8 ')


@pytest.mark.parametrize("compression", ["deflate", None])
def test_large_messages_both_ways_at_once(server: Start, compression: str | None) -> None:
    """A client that sends while it reads, more than all buffers hold.

    Not the threaded client: its `send()` holds a lock while it waits for the server to read, and its receiving thread
    wants the same lock, so that with both directions full neither moves again, whatever the server.
    """
    running = server(ECHO)
    messages = [bytes([number]) * 300_000 for number in range(40)]

    async def talk() -> None:
        assert isinstance(running.where, tuple)
        url = f"ws://{running.where[0]}:{running.where[1]}/"
        async with connect_async(
            url, compression=compression, open_timeout=PATIENCE, close_timeout=PATIENCE, max_size=None, proxy=None
        ) as client:

            async def send_all() -> None:
                for message in messages:
                    await client.send(message)

            sender = asyncio.create_task(send_all())
            for message in messages:
                assert await asyncio.wait_for(client.recv(), PATIENCE) == message
            await sender

    asyncio.run(talk())


def test_wsproto(server: Start) -> None:
    """A client that shares no code with us, byte by byte."""
    running = server(ECHO)
    assert isinstance(running.where, tuple)
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    got: list[Any] = []
    with socket.create_connection(running.where, PATIENCE) as sock:

        def say(event: wsproto.events.Event) -> None:
            for byte in client.send(event):
                sock.sendall(bytes((byte,)))

        def hear(kind: type) -> None:
            while not (got and isinstance(got[-1], kind)):
                client.receive_data(sock.recv(65536) or None)
                got.extend(client.events())

        extension = wsproto.extensions.PerMessageDeflate()
        say(wsproto.events.Request(host="t", target="/", subprotocols=["a"], extensions=[extension]))
        hear(wsproto.events.AcceptConnection)
        assert got[-1].subprotocol == "a"
        assert got[-1].extensions == [extension]
        say(wsproto.events.TextMessage("over and over " * 20, message_finished=False))
        say(wsproto.events.Ping(b"inside"))
        say(wsproto.events.TextMessage("again"))
        hear(wsproto.events.TextMessage)
        assert [each.payload for each in got if isinstance(each, wsproto.events.Pong)] == [b"inside"]
        assert got[-1].data == "over and over " * 20 + "again"
        say(wsproto.events.CloseConnection(1001, "away"))
        hear(wsproto.events.CloseConnection)
        assert got[-1].code == 1001
        assert sock.recv(1) == b""


def test_over_tls(server: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.client()
    running = server(ECHO, *authority.issue("127.0.0.1").options)
    with dial(running, "/boom", ssl=context) as client, pytest.raises(ConnectionClosedError):
        client.recv(PATIENCE)
    with dial(running, ssl=context) as client:
        for message in (b"x" * 10, b"x" * 1_000_000, "é" * 500_000):
            client.send(message)
            assert client.recv(PATIENCE) == message
        begin = time.monotonic()
        client.close(4000)
        # The client waits for the server to close; lingering would take that long.
        assert time.monotonic() - begin < connection.LINGER_SECONDS
    running.wait_log(r'"WEBSOCKET / HTTP/1\.1" 4000 ')


def test_the_access_log_has_both_ends(server: Start) -> None:
    running = server(ECHO)
    with dial(running, "/a?b=c", user_agent_header="agent/1", compression=None) as client:
        running.wait_log(r'"GET /a\?b=c HTTP/1\.1" 101 - "-" "agent/1"')
        client.send("x" * 100)
        client.recv(PATIENCE)
        client.close(4000)
    running.wait_log(r'"WEBSOCKET /a\?b=c HTTP/1\.1" 4000 100 "-" "agent/1"')


def test_settings_reach_the_socket(server: Start) -> None:
    running = server(ECHO, "--ws-max-size", "1000", "--no-ws-per-message-deflate")
    with dial(running) as client:
        assert client.response is not None
        assert "sec-websocket-extensions" not in client.response.headers
        client.send("x" * 1001)
        with pytest.raises(ConnectionClosedError) as caught:
            client.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


def test_an_application_that_fails_closes_with_1011(server: Start) -> None:
    running = server(ECHO)
    with dial(running, "/boom") as client, pytest.raises(ConnectionClosedError) as caught:
        client.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1011
    running.wait_log("the app's own mistake")


def test_pings_keep_the_socket_and_find_the_dead(server: Start) -> None:
    running = server(ECHO, "--ws-ping-interval", "200ms", "--ws-ping-timeout", "1s")
    assert isinstance(running.where, tuple)
    # A client that reads nothing does not answer pings either.
    with dial(running) as client, socket.create_connection(running.where, PATIENCE) as dead:
        dead.sendall(
            b"GET /dead HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        running.wait_log(r'"WEBSOCKET /dead HTTP/1\.1" 1006 ')
        received = b""
        while more := dead.recv(65536):
            received += more
        assert received.count(b"\x89\x00") >= 1
        assert received.endswith(b"ping timeout")
        client.send("still here")
        assert client.recv(PATIENCE) == "still here"


# ── a worker that must go ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP], ids=["stop", "reload"])
def test_a_socket_is_told_runs_on_and_is_closed_with_1012(server: Start, how: signal.Signals) -> None:
    running = server(ECHO, "--graceful-timeout", "3")
    with dial(running, "/draining") as client:
        assert client.recv(PATIENCE) == "waiting"
        running.signal(how)
        assert client.recv(PATIENCE) == "draining"
        client.send("still served")
        assert client.recv(PATIENCE) == "still served"
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(PATIENCE)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1012, "service restart")
    if how is signal.SIGTERM:
        assert running.wait_exit() == 0
    else:
        with dial(running) as client:
            client.send("the new worker")
            assert client.recv(PATIENCE) == "the new worker"
        assert running.stop() == 0


def test_a_recycled_worker_with_a_socket_is_replaced_and_lets_it_run(server: Start) -> None:
    """It does not count as the one worker any more: its replacement serves while the socket lives on."""
    running = server(ECHO, "--workers", "1", "--max-requests", "1", "--min-lifetime", "0", "--graceful-timeout", "600")
    with dial(running, "/draining") as client:
        assert client.recv(PATIENCE) == "waiting"
        assert running.fetch("/").body == b"http"
        assert client.recv(PATIENCE) == "draining"
        with dial(running) as other:
            other.send("the new worker")
            assert other.recv(PATIENCE) == "the new worker"
        client.send("still served")
        assert client.recv(PATIENCE) == "still served"
        client.close()
    assert running.stop() == 0


def test_a_socket_that_ends_in_time_is_not_cut(server: Start) -> None:
    running = server(ECHO, "--graceful-timeout", "30")
    with dial(running, "/draining") as client:
        assert client.recv(PATIENCE) == "waiting"
        running.terminate()
        assert client.recv(PATIENCE) == "draining"
        client.close()
        with pytest.raises(ConnectionClosedOK):
            client.recv(PATIENCE)
    assert running.wait_exit() == 0
    assert not re.search("cancelled, the time to drain is over", running.log)
