"""The master's shell where races bite: children of its own, and addresses that another took between bind and listen."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import Mock

import anyio
import pytest

from aserver import unix
from aserver.config import Resolved
from aserver.errors import ConfigError, ExitCode
from aserver.log.setup import Logging
from aserver.master import upgrade
from aserver.master.resources import AllResources, provide, provide_next
from aserver.master.runner import Runner
from aserver.sockets import Address
from tests.unit.master.stage import settings

pytestmark = [
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # the master's loop
    pytest.mark.skipif(not unix.LINUX, reason="there are no pidfds, and no subreaper"),
]

#: What ends at once, with a status that nobody would make up.
ENDS_WITH_7 = [sys.executable, "-I", "-S", "-c", "raise SystemExit(7)"]


def _runner(tmp_path: Path, reread: Callable[[], Resolved]) -> Runner:
    """Of a process of its own, as far as it can tell; nothing is started yet."""
    resources = AllResources(provide(settings(tmp_path), {}))
    return Runner(resources, logs=Mock(spec=Logging), reread=reread)


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    made = _runner(tmp_path, lambda: settings(tmp_path))
    yield made
    made.close()


async def _do_chores_until_end_of(kind: str, runner: Runner) -> None:
    """At every turn of the loop, so that one comes between a child's death and its wait, whatever the timing."""
    with anyio.fail_after(30):
        while runner.journal.latest(f"{kind}.ends") is None:
            runner.do_chores()
            await asyncio.sleep(0)


async def test_the_chores_leave_the_preflight_to_the_upgrade(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails with chores that reap what is not in `Processes`: "could not be started: No child processes" (ECHILD)."""
    monkeypatch.setattr(upgrade, "_command", lambda: ENDS_WITH_7)
    with caplog.at_level(logging.INFO, "aserver.master"):
        runner.upgrade("test")
        await _do_chores_until_end_of("upgrade", runner)
    assert "refused, everything stays as it is: the preflight ended with status 7" in caplog.text


async def test_the_chores_leave_a_settings_files_child_to_the_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails likewise: the standard library takes a status that somebody else reaped for 0, a failure for success."""
    loop = asyncio.get_running_loop()

    def reread() -> Resolved:
        child = subprocess.Popen(ENDS_WITH_7)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        for _ in range(2):  # turns of the loop between the child's death and our wait
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
        raise ConfigError(f"the file ended with status {child.wait()}")

    runner = _runner(tmp_path, reread)
    runner.reload("test")
    await _do_chores_until_end_of("reload", runner)
    runner.close()
    assert "the file ended with status 7" in caplog.text


# ── addresses ────────────────────────────────────────────────────────────────────────────────


def _take(address: Address) -> socket.socket:
    """Be the other server that has bound the same, as SO_REUSEADDR lets it, and is the first to listen."""
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    assert isinstance(address, tuple)
    other.bind(address)
    other.listen()
    return other


async def test_trap_56_a_reload_listens_where_it_can_and_tries_the_rest_at_the_next(
    runner: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two new TCP addresses and a path the first is taken. Fails if its refusal ends the loop, and if what was
    refused once is held to be listening.
    """
    caplog.set_level(logging.INFO, "aserver.master")
    runner.resources.of[1] = runner.resources.next
    runner.listen(1)
    old, new = f"unix:{tmp_path}/old.sock", f"unix:{tmp_path}/new.sock"
    assert caplog.messages == [f"listening on {old}"]

    runner.resources.next, _ = provide_next(runner.resources.next, settings(tmp_path, bind=[old, "127.0.0.1:0", new]))
    runner.resources.of[2] = runner.resources.next
    taken = runner.resources.next.listeners[1]
    with _take(taken.address):
        caplog.clear()
        runner.listen(2)
        (refusal, news) = caplog.messages[1], caplog.messages[0]
        assert news == f"listening on {new}"
        assert refusal.startswith(f"cannot listen on {taken.name}: Address already in use; it is in use by ")
        assert refusal.endswith("; the other listeners serve, and a reload tries this one again")
        await asyncio.sleep(0)
        assert runner.model.stop is None, "it serves on"

    caplog.clear()
    runner.resources.of[3] = runner.resources.next
    runner.listen(3)
    assert caplog.messages == [f"listening on {taken.name}"]


async def test_trap_56_a_first_start_that_cannot_listen_ends_and_names_each_address(tmp_path: Path) -> None:
    """Fails with an exit at the first refusal, or with none: it would serve on half of what it was told to."""
    resources = provide(settings(tmp_path, bind=["127.0.0.1:0", f"unix:{tmp_path}/a.sock", "localhost:0"]), {})
    runner = Runner(AllResources(resources), logs=None, reread=Mock())
    runner.resources.of[1] = resources
    tcp = [listener for listener in resources.listeners if listener.family == "inet"]
    with contextlib.ExitStack() as others:
        for listener in tcp:
            others.enter_context(_take(listener.address))
        runner.listen(1)
    result = runner.model.result
    assert result is not None
    assert result.code == ExitCode.BIND
    assert all(f"cannot listen on {listener.name}: " in result.reason for listener in tcp)
    await asyncio.sleep(0)
    assert runner.model.stop is not None
    runner.close()
