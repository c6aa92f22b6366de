"""A worker in the caller's loop: its signals."""

import os
import signal
from types import SimpleNamespace
from typing import Any, cast

from aserver.config import Layer, build
from aserver.launch.embedded import _stop_signals
from aserver.worker.server import Server
from tests.harness import eventually


async def test_embedded_sigterm_is_patient_and_sigint_is_not() -> None:
    """As they are to a master."""
    drains: list[dict[str, Any]] = []
    server = cast("Server", SimpleNamespace(drain=lambda **how: drains.append(how)))
    with _stop_signals(server, build([Layer("argument", {"graceful_timeout": 7})]).config):
        for signum in (signal.SIGTERM, signal.SIGINT):
            seen = len(drains)
            os.kill(os.getpid(), signum)
            await eventually(lambda: len(drains) > seen)  # noqa: B023
    assert drains == [{"final": True, "graceful": 7.0}, {"final": True, "graceful": 0.0}]
