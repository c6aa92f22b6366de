"""What an app runs beside its requests hears of the drain through `state["aserver.draining"]`."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import ServerProcess

pytestmark = pytest.mark.process


def test_the_notice_comes_before_lifespan_shutdown(server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """Seen to fail (nobody tells) without `service.context.leaving = state[...]` in worker/server.py."""
    events = tmp_path / "events"
    running = server("tests.apps.draining_notice:app", env={"APP_EVENTS": str(events)})
    running.signal(signal.SIGTERM)
    assert running.wait_exit() == 0
    assert events.read_text() == "told, and lifespan is up\n"
    assert "lifespan shutdown came before" not in running.log
