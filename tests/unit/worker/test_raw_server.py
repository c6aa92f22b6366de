"""Bare sockets of clients, in asyncio's loop and uvloop's. Each docstring says how it was seen to fail."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from aserver.worker.raw_server import RawServer
from tests.harness.waiting import eventually, turns_of_the_loop

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": use}) for use in (False, True)]),
]


class Stage:
    def __init__(self, listener: socket.socket) -> None:
        self.accepted: list[socket.socket] = []
        self.troubles: list[OSError] = []
        self.listener = listener
        loop = asyncio.get_running_loop()
        self.server = RawServer(loop, listener.dup(), 10, self.accepted.append, self._take_trouble)

    def _take_trouble(self, error: OSError) -> None:
        self.troubles.append(error)
        self.server.close()


@pytest.fixture
async def stage(anyio_backend: object) -> AsyncIterator[Stage]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stage = Stage(listener)
        yield stage
        stage.server.close()
        for each in stage.accepted:
            each.close()


async def test_a_clients_socket_is_given_away_and_blocks_nobody(stage: Stage) -> None:
    """Fails without `setblocking(False)`: the loop would wait for the client."""
    await stage.server.start_serving()
    with socket.create_connection(stage.listener.getsockname()) as client:
        await eventually(lambda: stage.accepted)
        assert stage.accepted[0].getpeername() == client.getsockname()
        assert not stage.accepted[0].getblocking()


async def test_nothing_is_accepted_after_the_close_and_the_listener_lives_on(stage: Stage) -> None:
    """Other workers accept on it. Fails with a shutdown of the listener, or a reader that stays in the loop."""
    await stage.server.start_serving()
    stage.server.close()
    stage.server.close()
    with socket.create_connection(stage.listener.getsockname()):
        await turns_of_the_loop()
        assert (stage.accepted, stage.troubles) == ([], [])
        stage.listener.settimeout(20)
        stage.listener.accept()[0].close()


async def test_a_client_that_another_worker_has_taken_is_no_trouble(stage: Stage) -> None:
    """Both hear of it in the same turn. Fails without BlockingIOError among those that are passed over."""
    other = Stage(stage.listener)
    for server in (stage.server, other.server):
        await server.start_serving()
    with socket.create_connection(stage.listener.getsockname()):
        await eventually(lambda: stage.accepted or other.accepted)
        await turns_of_the_loop()
    assert (len(stage.accepted + other.accepted), stage.troubles + other.troubles) == (1, [])
    other.server.close()
    for each in other.accepted:
        each.close()


async def test_an_error_that_lasts_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with a traceback in each turn of the loop, as the listener stays readable."""

    def exhausted(_: socket.socket) -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    await stage.server.start_serving()
    with socket.create_connection(stage.listener.getsockname()):
        await eventually(lambda: stage.troubles)
    assert stage.troubles[0].errno == 24
