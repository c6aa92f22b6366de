"""Standard descriptors that are closed at start: /dev/null takes their places before anything else can.

Each docstring says how the test was seen to fail.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import PATIENCE, ServerProcess, fetch
from tests.harness.server import REPOSITORY
from tests.process.rolling import Start, variant

pytestmark = pytest.mark.process

APP = """
import os, sys
async def app(scope, receive, send):
    if scope["type"] == "http":
        for stream in (sys.stdout, sys.stderr):
            print("printed", file=stream)
        sys.stdout.flush()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""
CLOSED = {0: "<&-", 1: ">&-", 2: "2>&-"}


def _command(tmp_path: Path, closed: tuple[int, ...], *options: str) -> list[str]:
    """The command under a shell that closes these descriptors."""
    (tmp_path / "printing.py").write_text(APP)
    command = [*ServerProcess.command("printing:app"), "--app-dir", str(tmp_path), *options]
    return ["sh", "-c", f'exec "$@" {" ".join(CLOSED[fd] for fd in closed)}', "sh", *command]


@pytest.mark.parametrize(
    "closed",
    [
        pytest.param((0,), marks=variant),
        pytest.param((1,), marks=variant),
        pytest.param((2,), marks=variant),
        (0, 1, 2),
    ],
)
def test_a_server_that_is_started_with_closed_streams(server: Start, tmp_path: Path, closed: tuple[int, ...]) -> None:
    """It serves, recycles, upgrades and stops, and no process has anything else at their places.

    Fails without standard_streams.keep: a leaving worker is aborted by libuv, which finds its descriptors at 0 to 2.
    """
    path, log = tmp_path / "socket", tmp_path / "log"
    options = ("--bind", f"unix:{path}", "--errorlog", str(log), "--min-lifetime", "0")
    running = server(argv=_command(tmp_path, closed, *options), ready=False)

    def said(text: str, count: int = 1) -> None:
        running.wait_for(lambda: log.exists() and log.read_text().count(text) >= count, what=f"{count} x {text!r}")

    def others() -> dict[str, list[str | None]]:
        places = {each.title: each.descriptors() for each in running.family()}
        told = {title: [found.get(fd) for fd in closed] for title, found in places.items()}
        return {title: found for title, found in told.items() if found != ["/dev/null"] * len(closed)}

    def look() -> None:
        # Not at once: a process that is just ending has no descriptors any more.
        running.wait_for(lambda: not others(), what="all to have /dev/null there")

    said("the one worker is ready")
    first = int(fetch(str(path)).body)
    look()
    (worker,) = running.workers()
    worker.kill(signal.SIGTERM)
    said("has left")
    running.signal(signal.SIGUSR2)
    said("generation 2 serves")
    said("has left", 2)
    assert int(fetch(str(path)).body) != first
    look()
    assert running.stop() == 0
    text = log.read_text()
    assert "crashed" not in text
    assert "Traceback" not in text
    assert text.count("has left") == 3


def test_closed_streams_of_an_embedding_program(tmp_path: Path) -> None:
    """They stay as they are, and the zygote sees to its own.

    Fails without standard_streams.keep in the zygote's program, and with libffi 3.8 where ctypes is imported before it.
    """
    (tmp_path / "printing.py").write_text(APP)
    path, done = tmp_path / "socket", tmp_path / "done"
    program = (
        "import asyncio, os, anyio, aserver\n"
        "async def main():\n"
        "    async with anyio.create_task_group() as group:\n"
        f"        await group.start(lambda **k: aserver.serve('printing:app', bind='unix:{path}', **k))\n"
        "        children = open(f'/proc/self/task/{os.getpid()}/children').read().split()\n"
        "        found = [[os.readlink(f'/proc/{pid}/fd/{fd}') for fd in range(3)] for pid in children]\n"
        f"        open({str(done)!r}, 'w').write(repr(found))\n"
        "        group.cancel_scope.cancel()\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program],
        env={"PYTHONPATH": f"{REPOSITORY}:{tmp_path}", "PATH": "/usr/bin:/bin", "ASERVER_APP_DIR": str(tmp_path)},
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0
    assert done.read_text() == repr([["/dev/null"] * 3])


def test_a_check_with_closed_streams(tmp_path: Path) -> None:
    """Nothing to say it with, but the exit code. Fails without standard_streams.keep in cli.main."""
    argv = ["check" if word == "run" else word for word in _command(tmp_path, (0, 1, 2))]
    result = subprocess.run(argv, cwd=REPOSITORY, timeout=PATIENCE, check=False)
    assert result.returncode == 0


@pytest.mark.parametrize("mode", ["--preload", pytest.param("--lazy", marks=variant)])
def test_an_app_that_closes_its_standard_input_when_it_is_imported(server: Start, tmp_path: Path, mode: str) -> None:
    """Its loop would get the number, and libuv aborts where it is closed. Fails without the call after the load."""
    (tmp_path / "printing.py").write_text(f"import os, sys\nsys.stdin.close()\nos.close(1)\n{APP}")
    running = server("printing:app", "--app-dir", str(tmp_path), mode, "--accesslog", "off")
    (worker,) = running.workers()
    assert worker.descriptors()[0] == worker.descriptors()[1] == "/dev/null"
    assert running.stop() == 0
    assert "crashed" not in running.log
