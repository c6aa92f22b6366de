"""One server without connections: what a drain may change of another."""

import anyio

from aserver.config import Layer, build
from aserver.worker.server import Server
from tests.apps.lifecycle import lifespans


async def test_a_second_drain_can_only_shorten() -> None:
    """SIGTERM after SIGINT, in a program that embeds us. Fails with the later deadline taken as it is."""
    server = Server(lifespans.good, build([Layer("argument", {})]).config, [], lambda: None)
    server.drain(final=True, graceful=100.0)
    first = server._deadline
    server.drain(final=False, graceful=50.0)
    second = server._deadline
    server.drain(final=False, graceful=3600.0)
    assert anyio.current_time() < server._deadline == second < first
    assert server._final, "nor does it forget that it is the last"
