"""Orders to drain."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

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


@pytest.mark.parametrize(
    ("graceful", "reason"), [(0.01, "the time to drain is over"), (0.0, "the stop is to be at once")]
)
async def test_a_cancelled_request_is_told_with_the_reason(
    graceful: float, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT gives no time that could be over. Fails with one text for both."""
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    loop = asyncio.get_running_loop()
    drain = ServerDrain(_config(), loop, Handshakes(loop, 10), lambda: None)
    service: Any = SimpleNamespace(active=1, connections=set())

    def cancel(why: str) -> list[str]:
        service.active = 0
        return [f"GET /slow, because {why}"]

    service.cancel, service.abort = cancel, lambda: None
    drain.order(final=True, graceful=graceful)
    await drain.cut_off(service)
    assert caplog.messages == [f"request cancelled, {reason}: GET /slow, because {reason}"]
