"""The fixtures of tests of the master's processes."""

from collections.abc import AsyncIterator

import pytest

from aserver import unix
from aserver.master import border
from tests.unit.master.stage import Stage


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(border, "check_process", lambda *_: None)
    monkeypatch.setattr(unix, "wait_pidfd", lambda _: None)
    made = Stage()
    yield made
    made.close()


@pytest.fixture
async def bare() -> AsyncIterator[Stage]:
    """Where there are no pidfds."""
    made = Stage(pidfds=False)
    yield made
    made.close()
