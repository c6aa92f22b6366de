"""What chaos found, each alone and at its worst moment."""

import signal
import sys
from collections.abc import Callable

import pytest

from tests.chaos import tree
from tests.harness import ServerProcess
from tests.harness.processes import process
from tests.process.rolling import keep_to

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of the tree in /proc"),
]


def test_who_serves_before_it_hears_that_it_is_not_wanted_finishes_its_requests(
    server: Callable[..., ServerProcess],
) -> None:
    """TTIN and TTOU while the zygote is halted; then the worker boots and serves while the master is halted.

    Seeds 26 and 32: its requests were cancelled at once. Fails with graceful=0.0 for who boots in reconcile._shrink.
    """
    running = server("tests.apps.rollout.app:app", "--workers", "1", "--no-access-log")
    (first,) = tree.workers(running)
    (zygote,) = tree.zygotes(running)
    zygote.kill(signal.SIGSTOP)
    running.signal(signal.SIGTTIN)
    running.wait_log("scaling from 1 to 2 workers")
    running.signal(signal.SIGTTOU)
    running.wait_log("scaling from 2 to 1 workers")
    master = process(running.pid)
    assert master is not None
    master.kill(signal.SIGSTOP)
    assert tree.halted(master)
    zygote.kill(signal.SIGCONT)
    second = running.wait_for(lambda: tree.workers(running).keys() - {first}, what="the second worker").pop()
    with keep_to(running, second) as connection:
        connection.send(b"GET /slow?amount=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        master.kill(signal.SIGCONT)
        answer = connection.read_response()
    assert (answer.status, answer.text) == (200, str(second))
    running.wait_log(rf"pid {second}\) has left")
    assert running.stop() == 0
