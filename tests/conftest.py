"""Fixtures for all tests, and the census that no test leaves a process behind."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness import ServerProcess, processes
from tests.harness.server import STARTED_SESSIONS


@pytest.fixture
def server() -> Iterator[Callable[..., ServerProcess]]:
    """Start real servers: `server("tests.apps.raw:app", "--workers", "2", env={...})` returns a ready one.

    `ready=False` returns at once. Whatever was started is ended after the test, and fails it if it left processes.
    """
    with ExitStack() as stack:

        def start(target: str = "", *options: str, ready: bool = True, **more: Any) -> ServerProcess:
            started = stack.enter_context(ServerProcess(target, *options, **more))
            return started.wait_ready() if ready else started

        yield start


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """At the end of the run, no process of any server that it started may be alive."""
    yield
    left = [each for session in STARTED_SESSIONS for each in processes.in_session(session)]
    for each in left:
        each.kill()
    assert not left, f"processes left behind by the tests: {left}"
