"""Workers whose loop stands still: found out, explained by their stacks, ended and replaced; and who is not to blame.

Each docstring says how the test was seen to fail.
"""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.harness import ClosedEarlyError, Notes, ServerProcess
from tests.process.rolling import APP, Start, hold, ready_pids, settle, variant

pytestmark = pytest.mark.process

#: How a handler can hold the loop: the path, and the function that the stacks must name.
BLOCKS = {
    "time.sleep": ("/block?amount=600", "_block"),
    "a busy loop": ("/busy?amount=600", "_spin"),
    "a C call that holds the GIL": ("/sum?amount=1000000000000", "_hold_the_lock"),
}


@pytest.mark.parametrize("how", BLOCKS)
def test_traps_83_and_85_a_hung_worker_is_explained_aborted_and_replaced(server: Start, how: str) -> None:
    """Once at slow_callback, with the stacks and the request; at hang_timeout again, SIGABRT, a new worker.

    Fails with stacks from a Python-level handler (the C call), without `service.note` (the request), and without
    `reported_beat` (a record each look).
    """
    path, function = BLOCKS[how]
    running = server(APP, "--slow-callback", "0.5", "--hang-timeout", "2")
    (old,) = ready_pids(running)
    with hold(running, path) as blocked:
        owner = re.escape(f"(the request begun last: {path})")
        running.wait_log(rf"pid {old}\): its event loop has stood still for [0-4]\.\d s {owner}, the stacks")
        running.wait_log(rf'rollout/app\.py", line \d+ in {function}')
        assert "aborted" not in running.log
        running.wait_log(rf"pid {old}\): its event loop stands still for 2\.\d s \(hang_timeout is 2 s\)")
        running.wait_log(rf"pid {old}\) was killed by aserver: its event loop stood still")
        with pytest.raises((ClosedEarlyError, ConnectionResetError)):
            blocked.read_response()
    running.wait_log(rf'rollout/app\.py", line \d+ in {function}', count=2)
    assert len(re.findall("has stood still", running.log)) == 1, "one record for one episode"
    settle(running, 1)
    assert running.fetch().status == 200
    assert running.stop() == 0


def test_traps_84_and_85_each_episode_is_told_once_with_its_own_stacks(server: Start) -> None:
    """Two slow callbacks that are no hang: nobody is killed, two records, each with its own function.

    Fails without the offset in read_trace (the second record repeats the first one's stacks).
    """
    running = server(APP, "--slow-callback", "0.4")
    (worker,), start = ready_pids(running), 0
    for number, (path, function) in enumerate((("/block", "_block"), ("/busy", "_spin")), 1):
        start = len(running.log)
        assert running.fetch(f"{path}?amount=1.2").status == 200
        running.wait_log(r"its event loop has stood still for [0-4]\.\d s", count=number)
        running.wait_log(f"in {function}", start=start)
    assert "in _block" not in running.log[start:]
    assert running.fetch().status == 200
    assert len(re.findall("has stood still", running.log)) == 2
    assert ready_pids(running) == [worker]
    assert running.stop() == 0


@variant
def test_slow_callback_0_is_off(server: Start) -> None:
    """Fails with `silent >= 0` in on_beats."""
    running = server(APP, "--slow-callback", "0")
    assert running.fetch("/block?amount=1.2").status == 200
    assert "stood still" not in running.log
    assert running.stop() == 0


@variant
def test_trap_86_the_app_may_use_faulthandler_and_sigusr1(server: Start, tmp_path: Path) -> None:
    """faulthandler.enable() in the app, and a stack is still logged. Fails with SIGABRT or enable() for the dump."""
    (tmp_path / "own_app.py").write_text(
        "import faulthandler, os\nfaulthandler.enable()\nfrom tests.apps.rollout.app import app\n"
    )
    running = server("own_app:app", "--app-dir", str(tmp_path), "--slow-callback", "0.4")
    assert running.fetch("/block?amount=1.2").status == 200
    running.wait_log("in _block")
    assert running.stop() == 0


@pytest.mark.parametrize("who", [pytest.param("everybody", marks=variant), "everybody, the master first to go on"])
def test_trap_35_a_stopped_process_tree_kills_nobody(server: Start, who: str) -> None:
    """SIGSTOP for longer than hang_timeout, then SIGCONT: a suspended machine.

    Fails without clock_restart in on_beats: every worker is aborted.
    """
    running = server(APP, "--workers", "2", "--hang-timeout", "1", "--slow-callback", "0.6")
    before = ready_pids(running)
    tree = [running.pid, *(each.pid for each in running.children())]
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    _wait_until_stopped_for(running, 1.5)
    if who != "everybody":
        os.kill(running.pid, signal.SIGCONT)
        _wait_until_stopped_for(running, 0.3)
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    assert running.fetch().status == 200
    for number in (3, 2):  # several looks at the heartbeats pass meanwhile
        running.signal(signal.SIGTTIN if number == 3 else signal.SIGTTOU)
        running.wait_log(f"to {number} workers")
        settle(running, number)
    assert set(before) <= {each.pid for each in running.workers()}
    assert "aborted" not in running.log
    assert "killed" not in running.log
    assert running.stop() == 0


def _wait_until_stopped_for(server: ServerProcess, seconds: float) -> None:
    """Let the clock go on: what is tested here is that time passes for the stopped."""
    end = time.monotonic() + seconds
    server.wait_for(lambda: time.monotonic() > end, what="the clock")


@variant
def test_one_stopped_worker_is_a_hung_one(server: Start, tmp_path: Path) -> None:
    """The others serve on; SIGABRT cannot end it, SIGKILL does. Fails without the second kill in _expire_workers."""
    notes = Notes(tmp_path)
    running = server(APP, "--workers", "2", "--hang-timeout", "1", env=notes.env)
    victim, other = running.workers()
    victim.kill(signal.SIGSTOP)
    assert int(running.fetch().body) == other.pid
    running.wait_log(rf"pid {victim.pid}\) was killed by aserver: its event loop stood still \(SIGKILL\)")
    settle(running, 2)
    assert other.alive
    assert running.stop() == 0
