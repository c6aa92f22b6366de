"""A worker in the caller's loop: its signals."""

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any, cast

import anyio

from aserver.config import Layer, build
from aserver.launch.embedded import _stop_signals
from aserver.worker.server import Server
from tests.harness import PATIENCE


async def test_embedded_sigterm_is_patient_and_sigint_is_not() -> None:
    """As they are to a master."""
    drains: list[dict[str, Any]] = []
    server = cast("Server", SimpleNamespace(drain=lambda **how: drains.append(how)))
    with _stop_signals(server, build([Layer("argument", {"graceful_timeout": 7})]).config), anyio.fail_after(PATIENCE):
        for signum in (signal.SIGTERM, signal.SIGINT):
            seen = len(drains)
            os.kill(os.getpid(), signum)
            while len(drains) == seen:
                await asyncio.sleep(0.01)
    assert drains == [{"final": True, "graceful": 7.0}, {"final": True, "graceful": 0.0}]
