"""More and fewer workers: TTIN, TTOU, WINCH and `workers=auto`, while clients ask.

Each docstring says how the test was seen to fail.
"""

import os
import re
import signal

import pytest

from aserver.unix import usable_cpus
from tests.harness import Load, ServerProcess, require_tool
from tests.process.rolling import APP, Start, ready_pids, settle, variant

pytestmark = pytest.mark.process


def test_ttin_and_ttou_change_the_number_and_no_request_fails(server: Start) -> None:
    """Up by two, down by three: never below one. Fails with kill instead of drain in reconcile._shrink."""
    running = server(APP, "--workers", "2")
    # A connection for each, and some under way in every worker at any moment: a few kept ones may all be one worker's.
    with Load(running.where, "/slow?amount=0.05", connections=16, keep_alive=False, pause=0) as load:
        for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3), (signal.SIGTTOU, 2)):
            running.signal(number)
            settle(running, count)
            load.wait_for_more(20)
            load.wait_for_different(count)  # the kernel may let one worker wait for its first
        for _ in range(3):
            running.signal(signal.SIGTTOU)
            settle(running, 1)
    load.outcome.check()
    assert len(load.outcome.bodies) == 4
    assert running.log.count("scaling from 2 to 1 workers") == 1
    assert "to 0 workers" not in running.log
    assert running.stop() == 0


def test_winch_stops_the_workers_and_keeps_the_sockets(server: Start) -> None:
    """Who connects meanwhile waits in the queue, and is answered when workers come back.

    Fails with listeners that are closed when no worker is left.
    """
    running = server(APP, "--workers", "2")
    running.signal(signal.SIGWINCH)
    running.wait_log("no worker serves, as told")
    running.wait_for(lambda: not running.workers(), what="the workers to leave")
    with running.connect() as waiting:
        waiting.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        running.signal(signal.SIGTTIN)
        assert waiting.read_response().status == 200
    running.signal(signal.SIGHUP)
    running.wait_log("generation 2 serves")
    assert running.stop() == 0


@variant
def test_a_reload_ends_winch(server: Start) -> None:
    """As many as the settings say. Fails without `not before` in generations._target_after."""
    running = server(APP, "--workers", "2")
    running.signal(signal.SIGWINCH)
    running.wait_for(lambda: not running.workers(), what="the workers to leave")
    running.signal(signal.SIGHUP)
    settle(running, 2, generation=2)
    assert running.fetch().status == 200
    assert running.stop() == 0


def test_workers_auto_is_what_this_process_may_use(server: Start) -> None:
    """By affinity, not what the machine has. Fails with os.cpu_count()."""
    one = min(os.sched_getaffinity(0))
    running = server(APP, "--workers", "auto")
    settle(running, usable_cpus())
    assert running.stop() == 0
    pinned = server(
        target="",
        argv=[require_tool("taskset"), "-c", str(one), *_command(), "--workers", "auto"],
    )
    settle(pinned, 1)
    assert pinned.stop() == 0


def _command() -> list[str]:
    return [*ServerProcess.command(APP), "--bind", "127.0.0.1:0"]


def test_ttou_takes_the_highest_slots_and_ttin_fills_them_again(server: Start) -> None:
    """Who stays is not replaced. Fails with a shrink that drains the oldest."""
    running = server(APP, "--workers", "3")
    (highest,) = _pids_of_slot(running, 3)
    lower = set(ready_pids(running)) - {highest}
    running.signal(signal.SIGTTOU)
    running.wait_log(rf"pid {highest}\) has left")
    assert {each.pid for each in settle(running, 2)} == lower
    running.signal(signal.SIGTTIN)
    after = {each.pid for each in settle(running, 3)}
    assert lower < after
    assert _pids_of_slot(running, 3) == [highest, *(after - lower)]
    assert running.stop() == 0


def _pids_of_slot(server: ServerProcess, slot: int) -> list[int]:
    return [int(pid) for pid in re.findall(rf"worker {slot} \(generation 1, pid (\d+)\) is ready", server.log)]
