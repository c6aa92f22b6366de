"""Accepting by a loop that closes what it is given: the listener itself outlives it."""

import asyncio
import socket

import pytest

from aserver.worker.acceptor import Acceptor, Endpoint

LOOPS = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
async def test_trap_69_each_turn_of_accepting_has_a_duplicate_of_the_listener() -> None:
    """Fails with `duplicate = self.endpoint.sock` in Acceptor.open: closing it ends the listener for good."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = Acceptor(Endpoint(listener, "here"), asyncio.Protocol, 10, asyncio.get_running_loop())
        for _ in range(2):
            await acceptor.open()
            acceptor.close()
            for _ in range(3):  # uvloop closes in a later turn
                await asyncio.sleep(0)
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        with socket.create_connection(listener.getsockname()):
            listener.settimeout(20)
            listener.accept()[0].close()
