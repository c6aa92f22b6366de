"""What is left where the system has no pidfds, memfds and subreaper (macOS), tried on Linux with `unix.LINUX` off.

`tests/apps/no_pidfds/sitecustomize.py` turns it off in every process of the server.
"""

import os
import signal
from collections.abc import Callable

import pytest

from tests.harness import ServerProcess
from tests.harness.server import REPOSITORY

pytestmark = pytest.mark.process

_PATH = os.pathsep.join([str(REPOSITORY / "tests" / "apps" / "no_pidfds"), str(REPOSITORY)])


@pytest.fixture
def running(server: Callable[..., ServerProcess]) -> ServerProcess:
    return server("tests.apps.raw:app", "--workers", "2", env={"PYTHONPATH": _PATH})


def test_a_worker_a_zygote_and_both_at_once_are_replaced(running: ServerProcess) -> None:
    """Seen to fail (endless recursion) when the end of a zygote's channel called for its last words for ever."""
    running.workers()[0].kill()
    running.wait_log(r"was killed by SIGKILL.*a new one starts")
    running.wait_log(r"is ready after", count=3)
    running.zygotes()[0].kill()
    running.wait_log(r"its workers serve on, another zygote starts")
    running.wait_log(r"zygote of generation 1 is up", count=2)
    assert running.fetch("/").status == 200
    assert running.stop() == 0


def test_a_reload_works_and_an_upgrade_is_refused(running: ServerProcess) -> None:
    """Seen to fail when the preflight was begun before asking for pidfds."""
    running.signal(signal.SIGHUP)
    running.wait_log(r"generation 2 serves")
    running.signal(signal.SIGUSR2)
    running.wait_log(r"upgrade \(SIGUSR2\) refused.*no pidfds")
    assert running.fetch("/").status == 200
    assert running.stop() == 0


def test_nothing_serves_on_when_the_master_is_killed(running: ServerProcess) -> None:
    """That no orphan serves rests on the channels' ends alone here."""
    running.kill()
    running.wait_for(lambda: not running.family(), what="every process to leave")
