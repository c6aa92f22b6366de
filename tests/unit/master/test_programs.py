"""The zygote that is started ahead of its order. Real processes; they end when their channel does."""

import os
import signal
from collections.abc import Iterator

import pytest

from aserver.master import programs


@pytest.fixture(autouse=True)
def _left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variable and the handler that a start sets in its own process."""
    monkeypatch.setenv("PWD", os.getcwd())
    before = signal.getsignal(signal.SIGCHLD)
    yield
    programs.abandon_zygote_ahead()
    signal.signal(signal.SIGCHLD, before)


def test_the_zygote_that_is_started_ahead_is_the_first_one() -> None:
    """Fails without `ahead` in start_zygote, which starts another; if it stays there, the second is the first again."""
    programs.start_zygote_ahead()
    ahead = programs.ahead
    assert ahead is not None
    first, second = programs.start_zygote(), programs.start_zygote()
    assert first == ahead != second
    for pid, channel in (first, second):
        channel.close()  # the master's end: a zygote that hears nothing leaves
        assert os.waitpid(pid, 0)[1] == 0


def test_a_zygote_that_is_not_needed_is_ended_and_reaped() -> None:
    """Fails without the kill (it would go on importing, with the standard streams open) and without the wait."""
    programs.start_zygote_ahead()
    assert programs.ahead is not None
    pid, channel = programs.ahead
    programs.abandon_zygote_ahead()
    assert channel.fileno() == -1
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    programs.abandon_zygote_ahead()  # nothing is left to end


def test_descriptors_of_a_supervisor_are_not_inherited() -> None:
    """Fails without `_passed`: the zygote would hold sockets and pipes that are not close-on-exec yet."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        programs.start_zygote_ahead()
        assert programs.ahead is None
    finally:
        os.close(reader)
        os.close(writer)
