"""The moment at which the master becomes its next image, in a process of its own."""

import subprocess
import sys

from tests.harness import PATIENCE

# Instead of the exec: look what would be kept by it, and fail.
BECOMING = """
import os, signal
from aserver import unix
from aserver.master import upgrade
from aserver.master.snapshot import Snapshot

def execve(*_):
    signal.raise_signal(signal.SIGHUP)
    print(*(signal.Signals(number).name for number in sorted(signal.sigpending())), noted)
    raise OSError(7, "Argument list too long")

noted = []
unix.note_signals([signal.SIGTERM, signal.SIGHUP], noted)
signal.raise_signal(signal.SIGTERM)
os.execve = execve
board = os.memfd_create("board")
snapshot = Snapshot({}, board, zygotes=[], workers=[], listeners=[], resources={}, files={}, logs=[], serving=1)
before = len(os.listdir("/proc/self/fd"))
print(upgrade.become(snapshot, noted))
print(sorted(noted), signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.get_inheritable(board))
print(len(os.listdir("/proc/self/fd")) - before)
"""


def test_trap_46_a_signal_that_was_taken_but_not_obeyed_comes_again() -> None:
    """To the next image, and to this one if the exec fails, which leaves nothing behind.

    Fails without raise_signal in become (SIGTERM, taken a moment before, is in nobody's list), without the mask
    (SIGHUP), and without restoring it.
    """
    done = subprocess.run(
        [sys.executable, "-c", BECOMING], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    kept, error, after, left = done.stdout.splitlines()
    assert kept == "SIGHUP SIGTERM []"
    assert error == "[Errno 7] Argument list too long"
    assert after == "[1, 15] set() False"
    assert left == "0"


LIMITED = """
import os, resource
from aserver.master import upgrade
from aserver.master.snapshot import Snapshot

os.execve = lambda *_: print("exec")
files = {1: {f"/srv/app/module_{number}.py": (number, number) for number in range(100)}}
snapshot = Snapshot({}, 0, zygotes=[], workers=[], listeners=[], resources={}, files=files, logs=[], serving=1)
before = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print(upgrade.become(snapshot, []))
print(len(os.listdir("/proc/self/fd")) - before)
"""


def test_an_estate_that_does_not_fit_is_no_upgrade() -> None:
    """Under `ulimit -f`. Fails with one os.write: it writes 1000 bytes, and the next image cannot read them."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines() == ["[Errno 27] File too large", "0"]
