"""The master's shell where races have bitten: children of its own, and listeners that another took meanwhile."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from aserver import unix
from aserver.config import Layer, Resolved, build
from aserver.errors import ConfigError
from aserver.log.setup import Logging
from aserver.master import upgrade
from aserver.master.provision import provide
from aserver.master.runner import Runner

pytestmark = [
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # the master's loop
    pytest.mark.skipif(not unix.LINUX, reason="there are no pidfds, and no subreaper"),
]

#: What ends at once, with a status that nobody would make up.
ENDS_WITH_7 = [sys.executable, "-I", "-S", "-c", "raise SystemExit(7)"]


def _settings(tmp_path: Path, **more: object) -> Resolved:
    values: dict[str, object] = {"target": "a:b", "errorlog": str(tmp_path / "log"), "bind": ["127.0.0.1:0"]}
    return build([Layer("test", values | more)])


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    """Of a process of its own, as far as it can tell; nothing is started yet."""
    made = Runner(provide(_settings(tmp_path), {}), logs=Mock(spec=Logging), reread=lambda: _settings(tmp_path))
    yield made
    made._close()


async def _do_chores_until(task: "asyncio.Task[Any]", runner: Runner) -> None:
    """At every turn of the loop, so that one comes between a child's death and its wait, whatever the timing."""
    while not task.done():
        runner._do_chores()
        await asyncio.sleep(0)


async def test_the_chores_leave_the_preflight_to_the_upgrade(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails with chores that reap whatever is not of the crew: "could not be started: No child processes" (ECHILD)."""
    monkeypatch.setattr(upgrade, "_command", lambda: ENDS_WITH_7)
    with caplog.at_level(logging.INFO, "aserver.master"):
        runner.upgrade("test")
        assert runner._upgrade is not None
        await _do_chores_until(runner._upgrade, runner)
    assert "refused, everything stays as it is: the preflight ended with status 7" in caplog.text


async def test_the_chores_leave_a_settings_files_child_to_the_reload(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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

    monkeypatch.setattr(runner, "_reread", reread)
    runner.reload("test")
    await _do_chores_until(runner._reading[0], runner)
    assert "the file ended with status 7" in caplog.text
