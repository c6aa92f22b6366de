"""What the application forks is the application's: its signals, its crashes and its end are its own.

Each test starts the real command, or a program that embeds the server. Each docstring says how it was seen to fail.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PATIENCE, Notes, Process, RawConnection, ServerProcess, fetch, process, wait_for
from tests.harness.server import REPOSITORY, addresses_in
from tests.process.rolling import variant

pytestmark = pytest.mark.process

HOUSEHOLD = "tests.apps.lifecycle.household:app"
Start = Callable[..., ServerProcess]


def _living(pid: int) -> Process:
    found = process(pid)
    assert found is not None
    return found


def _check_disposition(child: dict[str, Any]) -> None:
    assert child["wakeup"] == -1
    assert child["handled"] == []
    assert child["interrupt"] == "default_int_handler", "what every Python program begins with"
    assert child["faulthandler"] is False


@pytest.mark.parametrize("mode", ["--preload", pytest.param("--lazy", marks=variant)])
@pytest.mark.parametrize("way", ["fork", "multiprocessing", "thread"])
def test_a_child_has_pythons_own_signals_and_sigterm_ends_it_alone(server: Start, way: str, mode: str) -> None:
    """It dies of SIGTERM, and its worker serves on.

    Fails without unix.give_back_signals in ForkGuard.let_go: the child lives on, and the worker is due ("it got
    SIGTERM"). Fails in parts without set_wakeup_fd(-1) there, and without the loop's handlers.
    """
    running = server(HOUSEHOLD, mode, "--min-lifetime", "0")
    worker = running.ask("/")
    answer = running.ask(f"/child?way={way}")
    _check_disposition(answer)
    child = _living(answer["pid"])
    os.kill(child.pid, signal.SIGTERM)
    running.wait_for(lambda: not child.alive, what="the child to end")
    assert running.ask("/") == worker
    assert running.stop() == 0
    assert "SIGTERM)" in running.log, "the stop"
    assert "it got SIGTERM" not in running.log


def test_multiprocessing_terminates_its_children(server: Start) -> None:
    """Process.terminate() and join(). Fails without unix.give_back_signals in ForkGuard.let_go: join times out."""
    running = server(HOUSEHOLD, "--min-lifetime", "0")
    running.ask("/child?way=multiprocessing")
    assert running.ask("/terminate") == -signal.SIGTERM
    assert running.stop() == 0
    assert "it got SIGTERM" not in running.log


TERMINATES_AT_ONCE = """
import multiprocessing, time
async def app(scope, receive, send):
    codes = []
    for _ in range(20 if scope["type"] == "http" else 0):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(2)
        codes.append(child.exitcode)
        if child.exitcode is None:
            child.kill()
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(set(codes)).encode()})
"""


def test_a_child_that_is_terminated_at_its_first_instant_ends(server: Start, tmp_path: Path) -> None:
    """Fails without ForkGuard's mask: our handlers, which the child has for a moment, swallow the signal."""
    (tmp_path / "hasty.py").write_text(TERMINATES_AT_ONCE)
    running = server("hasty:app", "--app-dir", str(tmp_path), "--lifespan", "off")
    assert running.fetch().body == b"{-15}"
    assert running.stop() == 0


def test_a_child_forked_at_import_has_neither_handlers_nor_listeners(server: Start, tmp_path: Path) -> None:
    """The zygote's. Fails without ForkGuard.begin in the zygote: it survives SIGTERM, and keeps the port."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, "--on-fork-hazard", "warn", env=notes.env | {"FORK_AT_IMPORT": "1"})
    (told,) = notes.of("child")
    answer = json.loads(told)
    _check_disposition(answer)
    child = _living(answer["pid"])
    try:
        where = running.where
        os.kill(running.pid, signal.SIGTERM)
        running.wait_exit()
        assert child.alive, "the premise"
        with pytest.raises(ConnectionRefusedError):
            RawConnection(where)
        os.kill(child.pid, signal.SIGTERM)
        running.wait_for(lambda: not child.alive, what="the child to end")
    finally:
        child.kill()


def test_later_workers_have_their_listeners_and_let_their_children_go(server: Start) -> None:
    """The zygote forks again and again. Fails without `ForkGuard.end` before its forks, and without `begin` after."""
    running = server(HOUSEHOLD)
    running.workers()[0].kill()
    running.wait_log("is ready after", count=2)
    answer = running.ask("/child?way=fork")
    _check_disposition(answer)
    _living(answer["pid"]).kill()
    assert running.stop() == 0


def test_the_crash_of_a_child_is_not_told_as_its_workers(server: Start) -> None:
    """Fails without faulthandler.disable in ForkGuard.let_go: the stacks of the child stand in the worker's trace."""
    running = server(HOUSEHOLD)
    (worker,) = running.workers()
    assert os.WTERMSIG(running.ask("/crash")) == signal.SIGABRT
    worker.kill()
    running.wait_log("is ready after", count=2)
    assert "Fatal Python error" not in running.log


PROGRAM = """
import asyncio, logging, aserver
from tests.apps.lifecycle.household import app

logging.basicConfig(level="INFO")
asyncio.run(aserver.serve(app, bind="127.0.0.1:0", install_signal_handlers=True))
"""


def test_a_child_of_an_embedding_program_ends_alone(tmp_path: Path) -> None:
    """`aserver.serve(app)` serves in the program's own process, and may hear signals there.

    Fails without ForkGuard in embedded._stop_signals (the child's SIGTERM stops the server on Python 3.11, and the
    child survives it on all), and without ForkGuard in embedded._bound (the child keeps the port).
    """
    log = tmp_path / "log"
    with log.open("w") as file:
        program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=file, stderr=file, cwd=REPOSITORY)
    try:
        wait_for(lambda: addresses_in(log.read_text()), what="the program to serve", explain=log.read_text)
        where = addresses_in(log.read_text())[0].where
        first, second = (json.loads(fetch(where, "/child?way=fork").body) for _ in range(2))
        assert first["handled"] == []
        assert first["wakeup"] == -1
        child, other = _living(first["pid"]), _living(second["pid"])
        child.kill(signal.SIGTERM)
        wait_for(lambda: not child.alive, what="the child to end")
        assert json.loads(fetch(where, "/").body) == program.pid
        program.terminate()
        assert program.wait(PATIENCE) == 0
        assert other.alive, "the premise"
        with pytest.raises(ConnectionRefusedError):
            RawConnection(where)
        other.kill()
    finally:
        program.kill()
        program.wait()
