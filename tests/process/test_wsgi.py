"""WSGI under the real command: threads that do not come back. The frameworks are in test_frameworks.py."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import ServerProcess
from tests.process.rolling import hold, ready_pids, settle

pytestmark = pytest.mark.process


def test_a_stuck_thread_is_explained_and_costs_only_its_request(
    server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """504 and the stack; the worker is replaced, what it serves beside goes on to its good end, and nothing is killed.

    Then a thread that holds the interpreter: the loop stands still, and the report of the hang has the thread's stack.
    Fails without `stuck` in WorkerProcess._on_beat (no new worker), without `overdue` (no stack), and with threads that
    are no daemons (the old worker waits for `graceful_timeout`).
    """
    end = tmp_path / "end"
    limits = ("--request-timeout", "1", "--min-lifetime", "0", "--graceful-timeout", "60")
    running = server(
        "tests.apps.wsgi_app:app",
        *limits,
        "--slow-callback",
        "0.5",
        "--hang-timeout",
        "3",
        env={"APP_EVENTS": str(end)},
    )
    (old,) = ready_pids(running)
    with running.connect() as stream, hold(running, "/stuck") as stuck:
        stream.send(b"GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert stream.read_head().status == 200
        assert stuck.read_response().status == 504
        running.wait_log(
            r"GET /stuck: its application has done nothing for \d\.\d s \(request_timeout\); answered 504; client 127"
        )
        running.wait_log(r'wsgi_app\.py", line \d+, in wait_for_the_database')
        running.wait_log(r"a thread of its WSGI application is stuck in a request \(request_timeout\)")
        running.wait_for(lambda: len(ready_pids(running)) == 2, what="a new worker")
        new = ready_pids(running)[1]
        running.wait_for(lambda: running.fetch().body == str(new).encode(), what="the new worker to answer")
        end.touch()
        assert stream.read_to_end().endswith(b"4\r\nend\n\r\n0\r\n\r\n")
    settle(running, 1, other_than=old)
    assert "cuts off" not in running.log
    assert "killed" not in running.log
    with hold(running, "/hog"):
        running.wait_log(rf"pid {new}\): its event loop has stood still")
        running.wait_log(r'wsgi_app\.py", line \d+ in hold_the_interpreter')
        running.wait_log(rf"pid {new}\) was killed by aserver: its event loop stood still")
    assert len(re.findall("done nothing", running.log)) == 1
    settle(running, 1, other_than=new)
    assert running.fetch().status == 200
    assert running.stop() == 0
