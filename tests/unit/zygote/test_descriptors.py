"""The zygote as deputy: the workers that it holds by pidfd alone, also by more than a thousand descriptors."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from aserver.zygote import main
from aserver.zygote.adopted import Adopted
from aserver.zygote.main import Zygote


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
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A successor's first words are about all of them. Fails with `len(self._children)`: "0 workers drain"."""
    monkeypatch.setattr(main, "DEPUTY_ALLOWANCE", 0.0)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(child.pid)
    zygote: Any = Zygote.__new__(Zygote)
    zygote._config = SimpleNamespace(graceful_timeout=0.0, lifespan_shutdown_timeout=0.0)
    zygote._listeners, zygote._children, zygote._adopted = [], {}, Adopted()
    zygote._adopted.add(1, pidfd)
    with caplog.at_level(logging.ERROR, logger="aserver.error"):
        zygote._be_deputy()
    os.close(pidfd)
    assert caplog.messages[0].startswith("the master is gone: 1 workers drain")
    assert child.wait() == -signal.SIGKILL
    child.communicate()
