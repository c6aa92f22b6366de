"""The suite runs twice: interpreted, and with the protocol modules compiled (`make test-compiled`)."""

import os

from tests.harness.server import ServerProcess


def test_this_run_is_what_it_says() -> None:
    """Without this, a build that compiled nothing would pass as the compiled one."""
    with ServerProcess("tests.apps.raw:app") as running:
        running.wait_log("Python 3")
        assert (", protocol compiled" in running.log) == ("TEST_COMPILED" in os.environ)
