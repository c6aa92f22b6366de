"""Orders to drain."""

import asyncio

import anyio

from aserver.config import Config, Layer, build
from aserver.protocol.transport.handshakes import Handshakes
from aserver.worker.drain import ServerDrain


def _config(**settings: object) -> Config:
    return build([Layer("argument", settings)]).config


async def test_a_second_order_can_only_shorten() -> None:
    """SIGTERM after SIGINT, in a program that embeds us. Fails with the later deadline taken as it is."""
    loop = asyncio.get_running_loop()
    drain = ServerDrain(_config(), loop, Handshakes(loop, 10), lambda: None)
    assert drain.time_left == 0
    drain.order(final=True, graceful=100.0)
    first = drain.deadline
    drain.order(final=False, graceful=50.0)
    second = drain.deadline
    drain.order(final=False, graceful=3600.0)
    assert anyio.current_time() < drain.deadline == second < first
    assert drain.final, "nor does it forget that it is the last"
