"""One server's smaller parts: what a drain may change of another, when it is full, and who is worth waiting for."""

import asyncio
import contextlib
import logging
import re
import socket
import ssl
import time
from pathlib import Path

import anyio
import pytest
import trustme

from aserver.asgi import Receive, Scope, Send
from aserver.config import Config, Layer, build
from aserver.tls import Certificates
from aserver.worker.acceptor import AcceptorState, Endpoint
from aserver.worker.server import Server
from tests.harness import PATIENCE
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.serving import service_of

LOOPS = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
UPGRADE = (
    b"GET /socket HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def _config(**settings: object) -> Config:
    return build([Layer("argument", settings)]).config


async def test_a_final_stop_names_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Background work after an answer, and after a WebSocket's end, is not cut off; it is named, each once and early.

    Fails without either `_name`, and if an open WebSocket is named: the stop itself ends it soon.
    """
    monkeypatch.setattr("aserver.worker.drain.NAME_AFTER", 0.0)
    go, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            assert (await receive())["type"] == "websocket.disconnect"
            told.set()
        else:
            await _hello(scope, receive, send)
        await go.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener, caplog.at_level(logging.INFO):
        config = _config(idle_grace=0, stream_grace=0.4, lifespan="off")
        server = Server(app, config, [Endpoint(listener, "http")], release=lambda: None)
        ready = asyncio.Event()
        serving = asyncio.create_task(server.run(ready.set))
        await ready.wait()
        writers = []
        for request, answer in ((GET, b"hello"), (UPGRADE, b"\r\n\r\n")):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writers.append(writer)
            writer.write(request)
            with anyio.fail_after(PATIENCE):
                await reader.readuntil(answer)
        server.drain(final=True, graceful=PATIENCE)
        with anyio.fail_after(PATIENCE):
            await told.wait()
            while "WEBSOCKET /socket" not in caplog.text:
                await asyncio.sleep(0.01)
        go.set()
        await serving
        for writer in writers:
            writer.close()
    named = [each.getMessage() for each in caplog.records if "the stop waits" in each.getMessage()]
    over = r"the stop waits up to [\d.]+ s for {}, [\d.]+ s \(over for its client; its application works on\) \(stop"
    assert len(named) == 2
    assert re.match(over.format("GET /"), named[0])
    assert re.match(over.format("WEBSOCKET /socket"), named[1])


async def test_a_loop_that_stood_still_holds_it_against_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halted for a minute, or kept by an application: who waited meanwhile is served, and who came right after it.

    The chaos test lost single requests that way. Fails without `postpone`: the first sweep closes all three.
    """
    monkeypatch.setattr("aserver.worker.server.BEAT", 3600.0)  # the test says when
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = _config(header_timeout=10, keep_alive=5, lifespan="off")
        server = Server(_hello, config, [Endpoint(listener, "http")], release=lambda: None)
        ready = asyncio.Event()
        serving = asyncio.create_task(server.run(ready.set))
        await ready.wait()
        service = server.service
        assert service is not None
        service.context.now -= 60  # as if it had been then that the loop was seen last
        clients = [await asyncio.open_connection(*listener.getsockname()) for _ in range(3)]
        used, writer = clients[0]
        writer.write(GET)
        await used.readuntil(b"hello")
        with anyio.fail_after(PATIENCE):
            while len(service.connections) < len(clients):
                await asyncio.sleep(0)
        server.beat()
        assert service.context.now > anyio.current_time() - 1, "or no sweep, which is what closes them, has been made"
        for reader, writer in clients:
            writer.write(GET)
            with anyio.fail_after(PATIENCE):
                await reader.readuntil(b"hello")
            writer.close()
        server.drain(final=True, graceful=PATIENCE)
        await serving


class Late:
    """A TLS client whose steps the test chooses, with a PROXY header in front if there is one."""

    def __init__(self, port: int, header: bytes = b"") -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self.socket.send(header)

    async def hear(self) -> None:
        """Take what the server says next."""
        data = await self._loop.sock_recv(self.socket, 65536)
        assert data, "the server has cut the client off"
        self._incoming.write(data)

    def speak(self) -> bool:
        """Take the next step of the handshake; tells whether it was the last."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.socket.send(self._outgoing.read())
        return True

    async def ask(self) -> bytes:
        """Ask, after the handshake."""
        self._tls.write(GET)
        self.socket.send(self._outgoing.read())
        answer = b""
        while not answer.endswith(b"hello"):
            try:
                answer += self._tls.read()
            except ssl.SSLWantReadError:
                await self.hear()
        return answer

    def close(self) -> None:
        self.socket.close()


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
async def test_a_loop_that_stood_still_cuts_off_no_handshake_and_no_proxy_header(tmp_path: Path) -> None:
    """For longer than they may take, with the first byte, the last, or those between still to come.

    Fails with the loop's own timers (`ssl_handshake_timeout`, a `call_later` for the header), which are called once
    what came is read, however much is still missing; and without `handshakes.postpone` in Server.sweep.
    """
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    tls = Certificates(_config(certfile=str(tmp_path / "cert"), keyfile=str(tmp_path / "key")))
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for proxy in ("off", "v1"):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.setblocking(False)
            config = _config(header_timeout="200ms", lifespan="off", proxy_protocol=proxy)
            server = Server(_hello, config, [Endpoint(listener, "https", tls)], release=lambda: None)
            ready = asyncio.Event()
            servers.append((server, asyncio.create_task(server.run(ready.set)), listener.getsockname()[1]))
            await ready.wait()
        (plain, _, port), (proxied, _, proxied_port) = servers
        clients = [Late(port), Late(proxied_port, header), Late(proxied_port, header[:9]), Late(port)]
        with anyio.fail_after(PATIENCE):
            while len(plain.handshakes) < 2 or len(proxied.handshakes) < 2:
                await asyncio.sleep(0)
            for client in clients[:2]:
                client.speak()
                await client.hear()
        time.sleep(1.8)  # the loop stands still, for longer than the timeout and a sweep
        for client in (clients[0], clients[1], clients[3]):
            client.speak()
        await turns_of_the_loop(10)
        clients[2].socket.send(header[9:])
        clients[2].speak()
        with anyio.fail_after(PATIENCE):
            for client in clients:
                while not client.speak():
                    await client.hear()
                assert (await client.ask()).endswith(b"hello")
        for client in clients:
            client.close()
        for server, serving, _ in servers:
            server.drain(final=True, graceful=PATIENCE)
            await serving


async def test_a_loop_that_stood_still_ends_no_grace() -> None:
    """A client that asks in its grace, of which an application that keeps the loop takes nothing away.

    Fails with `end` as it is given in ServerDrain._until: the connection is closed.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        config = _config(idle_grace="200ms", lifespan="off")
        server = Server(_hello, config, [Endpoint(listener, "http")], release=listener.close)
        ready = asyncio.Event()
        serving = asyncio.create_task(server.run(ready.set))
        await ready.wait()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(GET)
        await reader.readuntil(b"hello")
        server.drain(final=True, graceful=PATIENCE)
        with anyio.fail_after(PATIENCE):
            while server.service is None or not server.service.context.draining:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)  # the grace has begun
            time.sleep(0.4)
            await turns_of_the_loop(10)
            writer.write(GET)
            await reader.readuntil(b"hello")
        writer.close()
        await serving


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("final", [True, False], ids=["stop", "recycle"])
async def test_a_client_that_the_loop_is_just_accepting_is_served_by_a_drain(*, final: bool) -> None:
    """Whatever turn of the loop the drain begins in, seen from the client's connect.

    Fails on asyncio's loop with `server.close()` in the turn in which the client was taken from the queue, and on both
    with one turn fewer in ServerDrain.run: nobody is connected yet, and the drain is over.
    """
    for turns in range(5):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            config = _config(lifespan="off", idle_grace=PATIENCE)
            server = Server(_hello, config, [Endpoint(listener, "http")], release=listener.close)
            ready = asyncio.Event()
            serving = asyncio.create_task(server.run(ready.set))
            await ready.wait()
            with socket.create_connection(listener.getsockname()) as client:
                client.setblocking(False)
                await turns_of_the_loop(turns)
                server.drain(final=final, graceful=PATIENCE)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, GET)
                answered = asyncio.create_task(loop.sock_recv(client, 1000))
                await asyncio.wait([answered, serving], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                if final or answered.done():
                    assert (await answered).endswith(b"hello"), f"{turns} turns after the connect"
                else:
                    listener.accept()[0].close()  # it waits in the queue, where another worker finds it
                    await asyncio.wait([answered])
                    answered.exception()  # the reset by the line above
            await serving


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
async def test_orders_to_pause_and_to_suspend_from_before_a_drain_change_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are given while a connection is made and carried out a turn later, when the drain may have begun.

    Fails with `Acceptor.suspend` or `pause` of a closed acceptor taken for orders, and without the look at the phase in
    `_politely` (a worker that leaves says that it is full).
    """
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        server = Server(
            _hello, _config(lifespan="off", limit_connections=1), [Endpoint(listener, "http")], lambda: None
        )
        ready = asyncio.Event()
        serving = asyncio.create_task(server.run(ready.set))
        await ready.wait()
        (acceptor,) = server.acceptors
        acceptor.factory()  # one connection is as many as may be: an order to suspend is on its way
        server.drain(final=False, graceful=PATIENCE)
        await serving
        assert acceptor.state is AcceptorState.CLOSED
        assert not acceptor.listens
        assert not caplog.messages


async def test_sweeps_are_a_period_apart_however_late_the_beats_are() -> None:
    """Fails with beats counted: with ten late ones from one sweep to the next, deadlines would lie in the past."""
    server = Server(_hello, _config(), [], lambda: None)
    service = service_of(_hello)
    begin = service.context.now
    seen = []
    for tenths in (1, 9, 14, 23, 30, 31):
        server.sweep(service, begin + tenths / 10)
        seen.append(round(service.context.now - begin, 1))
    assert seen == [0, 0, 1.4, 1.4, 3.0, 3.0]
