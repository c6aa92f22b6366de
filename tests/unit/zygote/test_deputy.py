"""The zygote as deputy: the workers that it holds by pidfd alone, also by more than a thousand descriptors."""

import fcntl
import logging
import os
import signal
import subprocess
import sys

import pytest

from aserver.zygote.deputy import Adopted, end_stragglers


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfds here")
def test_ended_workers_are_seen_by_descriptors_above_1024() -> None:
    """A flood of SIGUSR1 brings it two logs each time: select(2) would raise ValueError, and take the zygote along."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(child.pid)
    high = fcntl.fcntl(pidfd, fcntl.F_DUPFD_CLOEXEC, 1024)
    os.close(pidfd)
    adopted = Adopted()
    adopted.add(1, high)
    adopted.forget_dead()
    assert list(adopted) == [high]
    child.communicate(b"\n")
    adopted.forget_dead()
    assert not adopted


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfds here")
def test_a_deputy_counts_the_workers_that_it_adopted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A successor's first words are about all of them. Fails with `len(children)` for `alive`: "0 workers drain"."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(child.pid)
    adopted = Adopted()
    adopted.add(1, pidfd)
    with caplog.at_level(logging.ERROR, logger="aserver.error"):
        end_stragglers([], adopted, 0.0, look=lambda: None)
    os.close(pidfd)
    assert caplog.messages[0].startswith("the master is gone: 1 workers drain")
    assert child.wait() == -signal.SIGKILL
    child.communicate()
