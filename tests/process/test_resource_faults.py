"""What the system refuses to give: processes, and room on the disk for the pidfile and the sockets. Needs root."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import ServerProcess, tmpfs

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="root alone mounts file systems, and no limit of processes holds for root"
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="tmpfs"),
]

APP = "tests.apps.connection:app"
Start = Callable[..., ServerProcess]


#: The limit of the user's processes, lowered and raised by the zygote itself: prlimit(2) wants more than root has here.
HOOK = """
import os, resource
def pre_fork(server, worker):
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (0 if os.path.exists({switch!r}) else most, most))
"""


@pytest.mark.usefixtures("open_tree")
def test_a_fork_that_fails_is_said_and_tried_again_with_pauses(server: Start) -> None:
    """As at the limit of a user's or a cgroup's processes. Fails without `except OSError` in the zygote's _fork."""
    with tempfile.TemporaryDirectory() as directory:  # one that nobody may read
        os.chmod(directory, 0o755)
        switch, settings = Path(directory, "switch"), Path(directory, "settings.py")
        settings.write_text(HOOK.format(switch=str(switch)))
        running = server(APP, "--config", str(settings), "--user", "nobody", "--workers", "2")
        zygotes = running.zygotes()
        switch.touch()
        running.workers()[0].kill()
        running.wait_log(r"could not boot: fork failed: Resource temporarily unavailable", count=2)
        assert running.fetch().status == 200  # the other one serves
        assert running.zygotes() == zygotes
        switch.unlink()
        running.wait_log("is ready after", count=3)
        assert len(running.workers()) == 2
        assert running.stop() == ExitCode.OK


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system on which files can be made and nothing can be written."""
    with tmpfs(tmp_path / "full", "size=4k") as where:
        (where / "ballast").write_bytes(b"x" * 4096)
        yield where


@pytest.fixture
def disk_without_inodes(tmp_path: Path) -> Iterator[Path]:
    """A file system on which no file can be made."""
    with tmpfs(tmp_path / "none", "nr_inodes=1") as where:
        yield where


def test_a_full_disk_for_the_pidfile(server: Start, full_disk: Path) -> None:
    """Refused before anything is served, and no empty file stays. Fails without the second `except` of PidFile."""
    file = full_disk / "pid"
    running = server(APP, "--pidfile", str(file), ready=False)
    assert running.wait_exit() == ExitCode.CONFIG
    assert running.log.endswith(f"aserver: error: pidfile {file} cannot be written: No space left on device\n")
    assert not file.exists()


def test_no_room_for_a_unix_socket(server: Start, disk_without_inodes: Path) -> None:
    socket = disk_without_inodes / "sock"
    running = server(APP, bind=[f"unix:{socket}"], ready=False)
    assert running.wait_exit() == ExitCode.BIND
    assert running.log.endswith(f"aserver: error: cannot bind unix:{socket}: No space left on device\n")
