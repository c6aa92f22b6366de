"""A zygote with more than a thousand descriptors, as when a flood of SIGUSR1 brings it two logs each time."""

import fcntl
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from aserver.zygote.main import Zygote


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfds here")
def test_ended_workers_are_seen_by_descriptors_above_1024() -> None:
    """select(2) would raise ValueError, and take the zygote along."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(child.pid)
    high = fcntl.fcntl(pidfd, fcntl.F_DUPFD_CLOEXEC, 1024)
    os.close(pidfd)
    zygote: Any = SimpleNamespace(_adopted={1: high})
    Zygote._forget_dead(zygote)
    assert zygote._adopted == {1: high}
    child.communicate(b"\n")
    Zygote._forget_dead(zygote)
    assert not zygote._adopted
