"""Real control groups of version 1, where this user may make them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness.waiting import wait_for

_MOUNT = Path("/sys/fs/cgroup")


@contextmanager
def group(controller: str) -> Iterator[Path]:
    """The folder of a new group below this process's own, whose processes must end within the block.

    Skips the test if none can be made.
    """
    own = ""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, names, path = line.split(":", 2)
            if controller in names.split(","):
                own = path
    folder = _MOUNT / controller / own.lstrip("/") / f"aserver-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    try:
        yield folder
    finally:
        wait_for(lambda: _removed(folder), what=f"the processes of {folder} to end")


def _removed(folder: Path) -> bool:
    with suppress(OSError):  # the kernel lets go of a group a moment after its last process
        folder.rmdir()
    return not folder.exists()
