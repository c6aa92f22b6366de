"""Accepting by a loop that closes what it is given: the listener itself outlives it."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from aserver.protocol.transport.connection import server_of
from aserver.protocol.transport.handshakes import Handshakes
from aserver.worker.acceptor import Acceptor, Endpoint

LOOPS = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
async def test_trap_69_each_turn_of_accepting_has_a_duplicate_of_the_listener() -> None:
    """Fails with `duplicate = self.endpoint.sock` in Acceptor.open: closing it ends the listener for good."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop = asyncio.get_running_loop()
        acceptor = Acceptor(Endpoint(listener, "here"), asyncio.Protocol, 10, loop, Handshakes(loop, 10))
        for _ in range(2):
            await acceptor.open()
            acceptor.close()
            for _ in range(3):  # uvloop closes in a later turn
                await asyncio.sleep(0)
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        with socket.create_connection(listener.getsockname()):
            listener.settimeout(20)
            listener.accept()[0].close()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
async def test_a_listener_that_is_only_bound_is_listened_on(tls: bool) -> None:
    """A worker opens before the master listens, which does so only when the worker is ready.

    Fails (compiled) without `listen` in NativeServer.start_serving: EINVAL from accept(2), then a second of rest.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        loop = asyncio.get_running_loop()
        certificates: Any = object() if tls else None
        acceptor = Acceptor(Endpoint(listener, "here", certificates), asyncio.Protocol, 10, loop, Handshakes(loop, 10))
        await acceptor.open()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        acceptor.close()
        for _ in range(3):  # uvloop closes in a later turn
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("127.0.0.1", True),
        ("0.0.0.0", False),
        ("::1", True),
        ("::", False),
        ("path", True),
        ("\0aserver-test-acceptor", True),
    ],
)
async def test_what_is_known_of_all_connections_is_what_each_would_say(
    address: str, known: bool, tmp_path: Path
) -> None:
    """A listener on a wildcard has connections with different own ends. Fails with `server_of(name)` alone."""
    with contextlib.ExitStack() as stack:
        if address.count(".") == 3 or ":" in address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = stack.enter_context(socket.create_server((address, 0), family=family))
        else:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(tmp_path / "a.sock") if address == "path" else address)
            listener.listen()
        endpoint = Endpoint(listener, "here")
        assert (endpoint.server is not None) == known
        if address[0] == "\0":
            assert endpoint.server == ("@" + address[1:], None)
        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        class Asked(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                told.set_result(server_of(transport.get_extra_info("sockname")))
                transport.close()

        loop = asyncio.get_running_loop()
        acceptor = Acceptor(endpoint, Asked, 10, loop, Handshakes(loop, 10))
        await acceptor.open()
        with socket.socket(listener.family) as client:
            client.connect(listener.getsockname())
            own = await told
        acceptor.close()
        if known:
            assert own == endpoint.server


def test_a_transparent_proxys_listener_knows_nothing_of_its_connections() -> None:
    """They have the address that the client meant."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        try:
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        except (AttributeError, OSError):
            pytest.skip("needs Linux and CAP_NET_ADMIN")
        assert Endpoint(listener, "here").server is None


def test_a_path_is_what_the_operator_wrote(tmp_path: Path) -> None:
    """Seen as `.a.sock~` in scopes: the name under which the socket is prepared, and which the kernel keeps."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / ".a.sock~"))
        assert Endpoint(listener, "unix:/run/a.sock").server == ("/run/a.sock", None)
        assert Endpoint(listener, "fd://3").server == (str(tmp_path / ".a.sock~"), None)
