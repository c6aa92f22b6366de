"""`--daemon`: the command returns when the server is ready, with an exit code; the server has no terminal."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import processes
from tests.harness.client import fetch
from tests.harness.server import REPOSITORY, addresses_in
from tests.harness.waiting import PATIENCE, wait_for

APP = "tests.apps.raw:app"
#: The first worker starts at once, each other waits for the file `go`.
SLOW_APP = """
import asyncio, pathlib
HERE = pathlib.Path(__file__).parent

async def app(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    try:
        (HERE / "first").touch(exist_ok=False)
    except FileExistsError:
        while not (HERE / "go").exists():
            await asyncio.sleep(0.02)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""


class Daemon:
    """`aserver run -D` with a pidfile and a log in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.pidfile, self._log = directory / "pid", directory / "log"

    def command(self, target: str, *options: str) -> list[str]:
        options = ("--daemon", "--pidfile", str(self.pidfile), "--errorlog", str(self._log), *options)
        return [sys.executable, "-m", "aserver", "run", target, *options]

    def start(self, target: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end, with pipes that a detached server must let go."""
        return subprocess.run(
            self.command(target, *options),
            check=False,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def master(self) -> processes.Process:
        found = processes.process(int(self.pidfile.read_text()))
        assert found is not None
        return found


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    started = Daemon(tmp_path)
    yield started
    if started.pidfile.exists():
        started.master.kill()


def test_the_command_returns_when_all_workers_are_ready(daemon: Daemon) -> None:
    """And an upgrade does not detach again. Fails without `detached`, and without `is_continued` in the command."""
    done = daemon.start(APP, "--workers", "2", "--bind", "127.0.0.1:0")
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "", "")
    assert "all 2 workers are ready" in daemon.log
    master = daemon.master
    assert master.session not in (master.pid, os.getsid(0)), "a leader of its session could get a terminal"
    assert [master.descriptors()[fd] for fd in range(3)] == ["/dev/null"] * 3
    assert fetch(addresses_in(daemon.log)[0].where, "/json").status == 200
    os.kill(master.pid, signal.SIGUSR2)
    wait_for(lambda: "upgrade complete" in daemon.log, what="the upgrade", explain=lambda: daemon.log)
    assert daemon.master.pid == master.pid
    os.kill(master.pid, signal.SIGTERM)
    wait_for(lambda: not master.alive, what="the server to stop", explain=lambda: daemon.log)
    assert not daemon.pidfile.exists()


def test_a_start_that_fails_is_told_on_the_terminal_with_its_exit_code(daemon: Daemon, tmp_path: Path) -> None:
    done = daemon.start("tests.apps.nowhere:app", "--bind", "127.0.0.1:0")
    assert done.returncode == ExitCode.APP_LOAD
    assert "no module 'nowhere' in package 'tests.apps'" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = daemon.start(APP, "--bind", f"127.0.0.1:{port}")
    assert done.returncode == ExitCode.BIND
    assert f"port {port} on 127.0.0.1 is in use by pid {os.getpid()}" in done.stderr
    assert not daemon.pidfile.exists()


def test_readiness_is_told_after_an_upgrade_in_the_middle_of_the_start(daemon: Daemon, tmp_path: Path) -> None:
    """To the command that waits, and to `notify_fd`. Fails without `Snapshot.ready_lines`."""
    (tmp_path / "slow_start.py").write_text(SLOW_APP)
    reader, writer = os.pipe()
    options = ("--app-dir", str(tmp_path), "-w", "2", "--bind", "127.0.0.1:0", "--notify-fd", str(writer))
    command = daemon.command("slow_start:app", *options)
    with open(reader, "rb") as told:
        with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, pass_fds=[writer]) as starting:
            os.close(writer)
            wait_for(lambda: "is ready after" in daemon.log, what="the first worker", explain=lambda: daemon.log)
            master = daemon.master
            os.kill(master.pid, signal.SIGUSR2)
            wait_for(lambda: "goes on after the upgrade" in daemon.log, what="upgrade", explain=lambda: daemon.log)
            (tmp_path / "go").touch()
            assert starting.wait(PATIENCE) == ExitCode.OK
        assert told.read() == b"\n"  # up to the end of file: no process of the server has it
    assert "all 2 workers are ready" in daemon.log
    os.kill(master.pid, signal.SIGTERM)
    wait_for(lambda: not master.alive, what="the server to stop", explain=lambda: daemon.log)
