"""What a forked child lets go of: here in this process; real children are in tests/process/test_forked_children.py."""

import os
import signal
from pathlib import Path

from aserver import unix
from aserver.worker.fork_guard import ForkGuard


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_descriptors_are_closed_by_what_they_are_and_not_by_number(tmp_path: Path) -> None:
    """A loop accepts on duplicates, and numbers are used again. Fails where `let_go` closes the numbers themselves."""
    path = tmp_path / "listener"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    guard = ForkGuard([fd])
    copy = os.dup(fd)
    os.close(fd)
    other = os.open(os.devnull, os.O_RDONLY)  # most likely of the same number
    guard.let_go()
    assert is_open(other)
    assert not is_open(copy)
    os.close(other)


def test_our_signal_handlers_are_given_back_and_the_applications_stay() -> None:
    """Fails without `give_back_signals`, or where it resets every signal."""

    def ours(*_: object) -> None:
        pass

    def theirs(*_: object) -> None:
        pass

    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGWINCH, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGUSR1, ours)
        signal.signal(signal.SIGHUP, theirs)
        signal.signal(signal.SIGWINCH, unix.do_nothing)
        ForkGuard(handlers=lambda: [ours]).let_go()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGWINCH) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is theirs
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
