"""aserver inside the tests' own process: an embedding program that looks at what it has left.

`anyio_backend` and `_in_repository` are fixtures of the modules that import them.
"""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

import aserver
from aserver import unix
from tests.harness import PATIENCE
from tests.harness.processes import descendants
from tests.harness.server import REPOSITORY

ANYWHERE: dict[str, Any] = {"bind": "127.0.0.1:0", "accesslog": "off"}
Address = tuple[str, int]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops that a caller may have."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # where the targets are found, as in the other tests
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    for name in [name for name in os.environ if name.startswith("ASERVER_")]:
        monkeypatch.delenv(name)  # such as the patience of these tests: a server would take it for a setting


async def get(address: Address, path: str = "/") -> bytes:
    """The body of one answer, by plain streams: no client library, no threads."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return answer.partition(b"\r\n\r\n")[2]


class Footprint:
    """What a process has of its own: descriptors, threads, signal handlers, children, tasks."""

    def __init__(self) -> None:
        gc.collect()
        # libuv keeps /dev/null open, for as long as the loop lives, from its first listener on (uv__server_io, EMFILE).
        targets = [what for what in unix.open_fds().values() if what != os.devnull and "/proc/" not in what]
        self.fds = sorted(what.partition("[")[0] for what in targets)
        self.threads = {thread.name for thread in threading.enumerate()}
        self.handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self.children = [child.pid for child in descendants(os.getpid())]
        self.tasks = len(asyncio.all_tasks())

    def check(self) -> None:
        """Raise AssertionError unless all is as it was."""
        now = Footprint()
        assert (now.fds, now.handlers) == (self.fds, self.handlers)
        assert now.threads <= self.threads, "one of an earlier test may end meanwhile"
        assert (now.children, now.tasks) == (self.children, self.tasks)


@asynccontextmanager
async def served(app: Callable[..., Any] | str, **settings: Any) -> AsyncIterator[Address]:
    """The address, while it serves; leaving cancels and waits."""
    async with anyio.create_task_group() as group:
        (address,) = await group.start(partial(aserver.serve, app, **(ANYWHERE | settings)))
        yield address
        group.cancel_scope.cancel()
