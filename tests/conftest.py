"""Fixtures for all tests, and the census that no test leaves a process behind."""

import stat
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ServerProcess, processes
from tests.harness.server import STARTED_SESSIONS
from tests.harness.tools import lacking


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the bytecode of the test modules even where PYTHONDONTWRITEBYTECODE is set.

    Without it each process of a parallel run compiles all of them, which takes 8 s of its time. The applications that
    tests write and import are not concerned.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


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


@pytest.fixture(scope="session")
def open_tree() -> None:
    """Another user than root loads the code of these tests: skip where a folder above shuts others out."""
    for folder in Path(__file__).resolve().parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            lacking(f"nobody but its owner may enter {folder}, and this test serves as another user from below it")


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """At the end of the run, no process of any server that it started may be alive."""
    yield
    left = [each for session in STARTED_SESSIONS for each in processes.in_session(session)]
    for each in left:
        each.kill()
    assert not left, f"processes left behind by the tests: {left}"
