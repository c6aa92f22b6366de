"""aserver inside somebody else's program: `aserver.serve` and `aserver.run` leave nothing behind, take nothing over.

The tests' own loop is the caller's; where signals or the whole process matter, a program of its own is started.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.abc
import pytest

import aserver
from aserver.asgi import Receive, Scope, Send
from aserver.errors import AppLoadError, BindError, BootError, ConfigError
from tests.apps.lifecycle import lifespans
from tests.harness import PATIENCE, Notes, eventually, wait_for
from tests.harness.processes import descendants
from tests.harness.server import REPOSITORY
from tests.process.embedding import ANYWHERE, Footprint, _in_repository, anyio_backend, get, served

__all__ = ["_in_repository", "anyio_backend"]  # fixtures

pytestmark = pytest.mark.process

PROBE = "tests.apps.lifecycle.probe:app"


# ── an app object, in this very loop ─────────────────────────────────────────────────────────


async def test_an_app_object_is_served_in_the_callers_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` returns the bound addresses; lifespan runs; cancelling leaves nothing. Fails with a leaked listener."""
    notes = Notes(tmp_path)
    monkeypatch.setenv("APP_EVENTS", str(notes.path))
    before = Footprint()
    async with served(lifespans.good) as address:
        assert address[1] > 0
        during = Footprint()
        assert during.handlers == before.handlers, "no signal handler is installed"
        assert during.threads <= before.threads
        assert during.children == before.children
        assert json.loads(await get(address)) == {"pid": os.getpid(), "state": {"number": 0, "list": []}}
    assert notes.lines == ["startup", "shutdown"]
    before.check()


async def test_cancelling_lets_the_request_in_flight_finish() -> None:
    """The app answers when the drain has begun. Fails without the shield in Server.run."""
    before = Footprint()
    started, finished = False, False
    answer = b""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal started, finished
        assert scope["type"] == "http"
        started = True
        await scope["state"]["aserver.draining"].wait()
        for _ in range(100):  # turns of the loop, in which a server that does not wait is gone
            await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late but whole"})
        finished = True

    async with anyio.create_task_group() as outer:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            scope = group.cancel_scope
            (address,) = await group.start(partial(aserver.serve, app, lifespan="off", **ANYWHERE))

            async def ask() -> None:
                nonlocal answer
                answer = await get(address)

            outer.start_soon(ask)
            await eventually(lambda: started, "the request to be under way")
            scope.cancel()
        assert finished, "serve() has waited for it"
    assert answer == b"late but whole"
    before.check()


async def test_plain_asyncio_task_and_cancel() -> None:
    """Without anyio anywhere in the caller. The exception is CancelledError, and comes after the drain."""
    before = Footprint()
    task = asyncio.create_task(aserver.serve(lifespans.good, **ANYWHERE))
    await asyncio.sleep(0)
    task.cancel()  # at once, in the middle of starting
    with pytest.raises(asyncio.CancelledError):
        await task
    before.check()


@pytest.mark.parametrize("app", ["hangs", "waits"])
async def test_cancelling_while_lifespan_starts(app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's lifespan task is cancelled and waited for. Fails without the shield in Lifespan.startup."""
    notes = Notes(tmp_path)
    monkeypatch.setenv("APP_EVENTS", str(notes.path))
    monkeypatch.setenv("LIFESPAN_WAITS", str(tmp_path / "never"))
    before = Footprint()
    async with anyio.create_task_group() as group:
        group.start_soon(partial(aserver.serve, getattr(lifespans, app), **ANYWHERE))
        await eventually(lambda: notes.lines, "lifespan startup to begin")
        group.cancel_scope.cancel()
    before.check()


async def test_two_servers_in_one_loop() -> None:
    """Each with its own state and port."""
    before = Footprint()
    async with served(lifespans.good) as one, served(lifespans.good) as other:
        assert one != other
        for _ in range(2):
            await get(one)
        assert json.loads(await get(one))["state"]["list"] == [1, 1]
        assert json.loads(await get(other))["state"]["list"] == []
    before.check()


async def test_a_wsgi_object_is_served_and_leaves_no_thread() -> None:
    """As by the command. Fails with the executor left to the end of the interpreter."""

    def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [("content-length", "2")])
        return [environ["PATH_INFO"].encode()]

    before = Footprint()
    gc.disable()  # it ends the threads too, some time later
    try:
        async with served(wsgi) as address:
            assert await get(address, "/a") == b"/a"
        await eventually(lambda: threading.active_count() <= len(before.threads), "the app's threads to end")
    finally:
        gc.enable()
    before.check()


async def test_whoever_connects_while_the_loop_is_busy_waits_in_the_queue() -> None:
    """Fails with a backlog of 1 in `ready`: from the third on they would try again a second later, and again."""
    async with served(lifespans.good) as address:
        for connection in [socket.create_connection(address, timeout=PATIENCE) for _ in range(20)]:
            connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
async def test_warnings_and_trouble_with_the_access_log_reach_the_callers_logging(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    async with served(lifespans.good, accesslog="/dev/full", max_requests_jitter=5) as address:
        assert any("max_requests_jitter does nothing" in message for message in caplog.messages)
        await get(address)
        await eventually(
            lambda: any("access log" in message for message in caplog.messages), "the full disk to be said"
        )


async def test_errors_are_raised_as_what_they_are() -> None:
    """Each type, with nothing left behind. Fails with a task group around that wraps them."""
    before = Footprint()
    with pytest.raises(ConfigError, match="workres"):
        await aserver.serve(lifespans.good, workres=2)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"workers = 4.*one worker"):
        await aserver.serve(lifespans.good, workers=4, **ANYWHERE)
    with pytest.raises(AppLoadError, match="takes no arguments"):
        await aserver.serve(lambda: None, **ANYWHERE)
    with pytest.raises(BootError, match="lifespan startup failed: the database is away"):
        await aserver.serve(lifespans.fails, **ANYWHERE)
    with pytest.raises(BootError, match="ValueError: no lifespan here") as caught:
        await aserver.serve(lifespans.raises, lifespan="on", **ANYWHERE)
    assert "lifespans.py" in caught.value.__notes__[0]
    async with served(lifespans.good) as address:
        with pytest.raises(BindError, match=f"{address[1]}.*pid {os.getpid()}"):
            await aserver.serve(lifespans.good, bind=f"127.0.0.1:{address[1]}")
    before.check()


def test_in_a_thread_that_is_not_the_main_one() -> None:
    """Nothing in it needs signals. Fails with any signal handler, which only the main thread may set."""
    seen: list[bytes] = []

    async def main() -> None:
        async with served(lifespans.good) as address:
            seen.append(await get(address))

    thread = threading.Thread(target=anyio.run, args=(main,), name="embedded")
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert len(seen) == 1


# ── a target string: a whole master in this loop ─────────────────────────────────────────────


async def test_a_target_gets_a_whole_master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zygote and two workers; no handler, no subreaper flag; cancelling ends all of it. Fails without Runner._close."""
    notes = Notes(tmp_path)
    monkeypatch.setenv("APP_EVENTS", str(notes.path))
    before = Footprint()
    async with served(PROBE, workers=2) as address:
        assert Footprint().handlers == before.handlers
        assert len(descendants(os.getpid())) - len(before.children) >= 2, "a zygote and a worker at least"
        pid = int(await get(address))
        assert pid != os.getpid()
        assert os.getpid() not in notes.pids("import")
    assert len(notes.pids("atexit")) >= 1
    before.check()


async def test_cancelling_a_master_drains_and_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request in a worker finishes; this loop sleeps meanwhile.

    Fails without the shield in Runner.run: the scope cancels it again in each turn of the loop, at full load.
    """
    notes = Notes(tmp_path)
    monkeypatch.setenv("APP_EVENTS", str(notes.path))
    before = Footprint()
    answer = b""
    waits = 0
    shield = asyncio.shield

    def counting(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        nonlocal waits
        waits += 1
        return shield(future)

    monkeypatch.setattr(asyncio, "shield", counting)
    async with anyio.create_task_group() as outer, anyio.create_task_group() as group:
        (address,) = await group.start(partial(aserver.serve, PROBE, **ANYWHERE))

        async def ask() -> None:
            nonlocal answer
            answer = await get(address, "/slow?seconds=0.5")

        outer.start_soon(ask)
        await eventually(lambda: "slow" in notes.lines, "the request to be under way")
        group.cancel_scope.cancel()
    assert answer.isdigit()
    assert waits <= 3, "it waits once, is cancelled once, and waits for the end"
    before.check()


async def test_cancelling_a_master_twice_ends_requests_at_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C does under asyncio.run(). Fails without StopMode.QUICK in Runner.run: the request has its 30 s."""
    caplog.set_level(logging.INFO, "aserver.master")
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    notes = Notes(tmp_path)
    monkeypatch.setenv("APP_EVENTS", str(notes.path))
    started = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        aserver.serve(PROBE, task_status=SimpleNamespace(started=started.set_result), **ANYWHERE)
    )
    (address,) = await started
    asking = asyncio.create_task(get(address, f"/slow?seconds={2 * PATIENCE}"))
    await eventually(lambda: "slow" in notes.lines, "the request to be under way")
    serving.cancel()
    await eventually(lambda: any("stopping (cancelled)" in text for text in caplog.messages), "the stop")
    serving.cancel()
    with anyio.fail_after(PATIENCE), pytest.raises(asyncio.CancelledError):
        await serving
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize(
    ("target", "settings", "error", "text"),
    [
        ("tests.apps.lifecycle.nothing:app", {}, AppLoadError, "no module 'nothing'"),
        ("tests.apps.lifecycle.broken:app", {}, AppLoadError, "no such database: orders"),
        ("tests.apps.lifecycle.lifespans:fails", {"boot_retries": 1}, BootError, "the database is away"),
        ("tests.apps.lifecycle.probe:app", {"workers": "many"}, ConfigError, "workers"),
        ("tests.apps.lifecycle.probe:app", {"errorlog": "/nowhere/at/all"}, ConfigError, "/nowhere/at/all"),
    ],
)
async def test_a_target_that_cannot_be_served(
    target: str, settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    """The same exceptions as for an app object, not wrapped in a group. Fails with _conclude inside the task group."""
    before = Footprint()
    with pytest.raises(error, match=text):
        await aserver.serve(target, **(ANYWHERE | settings))
    before.check()


# ── programs of their own ────────────────────────────────────────────────────────────────────

PROGRAM = """
import asyncio, sys, signal
import anyio, aserver
from tests.apps.lifecycle import lifespans

async def main():
    async with anyio.create_task_group() as group:
        from functools import partial
        handlers = {handlers!r}
        serve = partial(aserver.serve, {app}, bind="127.0.0.1:0", install_signal_handlers=handlers)
        addresses = await group.start(serve)
        print("serving", addresses[0][1], flush=True)
    print("over", signal.getsignal(signal.SIGTERM), flush=True)

{run}
"""


def _program(code: str, *, session: bool = True) -> "subprocess.Popen[str]":
    # Whoever starts the tests in the background of a script has made them deaf to SIGINT, and Python leaves that so.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", hears + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        start_new_session=session,
    )


@pytest.mark.parametrize("run", ["anyio.run(main)", "asyncio.run(main())"])
@pytest.mark.parametrize("app", ["lifespans.good", "'tests.apps.lifecycle.probe:app'"])
def test_signal_handlers_only_when_asked_for(app: str, run: str) -> None:
    """Asked: SIGTERM is a graceful stop and the handler is gone afterwards. Fails without _stop_signals (an object)."""
    with _program(PROGRAM.format(app=app, run=run, handlers=True)) as program:
        assert program.stdout is not None
        assert "serving" in _lines_to(program, "serving")[-1]
        program.terminate()
        rest = program.communicate(timeout=PATIENCE)[0]
    assert program.returncode == 0, rest
    assert "over 0" in rest or "over Handlers.SIG_DFL" in rest, rest
    assert "Traceback" not in rest


def _lines_to(program: "subprocess.Popen[str]", word: str) -> list[str]:
    lines = []
    assert program.stdout is not None
    for line in program.stdout:
        lines.append(line)
        if word in line:
            break
    return lines


@pytest.mark.parametrize("app", ["lifespans.good", "'tests.apps.lifecycle.probe:app'"])
def test_without_handlers_ctrl_c_is_the_callers(app: str) -> None:
    """anyio.run turns SIGINT into a cancellation: that drains, and the caller's KeyboardInterrupt comes out."""
    with _program(PROGRAM.format(app=app, run="anyio.run(main)", handlers=False)) as program:
        _lines_to(program, "serving")
        session = program.pid
        program.send_signal(signal.SIGINT)
        rest = program.communicate(timeout=PATIENCE)[0]
    assert "KeyboardInterrupt" in rest
    assert "Exception ignored" not in rest
    wait_for(lambda: not descendants(session), what="its processes to go")


MAIN = """
import signal, sys
import aserver
signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf, if the tests run in the background of a script

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": " ".join(sys.argv[1:]).encode()}})

if __name__ == "__main__":
    print("returned", int(aserver.run({app}, bind="127.0.0.1:0", errorlog={errors!r})))
"""


@pytest.mark.parametrize(("app", "stop"), [("app", signal.SIGINT), ("'main:app'", signal.SIGTERM)])
def test_run_blocks_and_returns_the_exit_code(app: str, stop: signal.Signals, tmp_path: Path) -> None:
    """With an object as with a target; the app finds the program's own arguments.

    Fails without `Boot.arguments` for the target, and with a loop without handlers (run_here) for the object.
    """
    errors = tmp_path / "errors"
    (tmp_path / "main.py").write_text(MAIN.format(app=app, errors=str(errors)))
    arguments = [sys.executable, "-X", "dev", "-W", "error", "main.py", "--of", "the user"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ASERVER_")}
    with subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, env=environ, text=True) as program:
        ready = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
        wait_for(lambda: errors.exists() and ready.search(errors.read_text()), what="the server to listen")
        port = int(ready.findall(errors.read_text())[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
            assert answer.read() == b"--of the user"
        program.send_signal(stop)
        rest = program.communicate(timeout=PATIENCE)[0]
    assert "returned 0" in rest
    assert '"GET / HTTP/1.1" 200' in rest
    assert "stopped" in errors.read_text()


async def test_an_object_has_no_processes_of_the_servers_own(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument that needs them is refused; of the environment it is told. Fails without _weigh."""
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    with pytest.raises(ConfigError, match=r"user = 'nobody' \(argument\).*target string"):
        await aserver.serve(lifespans.good, user="nobody", **ANYWHERE)
    monkeypatch.setenv("ASERVER_WORKERS", "3")
    async with served(lifespans.good):
        assert any("workers = 3" in text and "does nothing" in text for text in caplog.messages)


async def test_a_factory_is_called() -> None:
    """As uvicorn has it, also for an object. Fails without `factory` in `adapt`."""
    async with served(lambda: lifespans.good, factory=True) as address:
        assert await get(address)


async def test_cancelling_twice_ends_at_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does under asyncio.run(): the first says for which requests it waits, the second ends them.

    Fails without the `except` in Server.run: the request goes on, and its connection is left behind.
    """
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    before = Footprint()
    ended = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal ended
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await asyncio.Event().wait()
        finally:
            ended = True

    patient: dict[str, Any] = {"lifespan": "off", "graceful_timeout": 2 * PATIENCE, "stream_grace": 2 * PATIENCE}
    started = asyncio.get_running_loop().create_future()
    status = SimpleNamespace(started=started.set_result)
    serving = asyncio.create_task(aserver.serve(app, task_status=status, **patient, **ANYWHERE))
    (address,) = await started
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"begun")
    serving.cancel()
    await eventually(lambda: any("GET /stream" in text for text in caplog.messages), "the word for which it waits")
    assert not ended
    serving.cancel()
    with anyio.fail_after(PATIENCE), pytest.raises(asyncio.CancelledError):
        await serving
    assert ended
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    before.check()


async def test_a_deleted_unix_path_comes_back(tmp_path: Path) -> None:
    """Seen to fail without `on_beat=tend` in embedded.py."""
    path = tmp_path / "a.sock"
    async with anyio.create_task_group() as group:
        await group.start(partial(aserver.serve, lifespans.good, bind=[f"unix:{path}"], accesslog="off"))
        path.unlink()
        with anyio.fail_after(PATIENCE):
            while not path.exists():
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
