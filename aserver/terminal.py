"""The process group's signals, and a terminal's modes: both are shared with the shell or supervisor that starts us.

Used by every process of ours, and by none that embeds us. A terminal and many supervisors signal a whole process group.
Only the master acts on such a signal, so the other processes must let it pass at every moment of their lives: signals
are `blocked` across an exec until the new process has said how it takes them.
"""

import contextlib
import errno
import os
import signal
import termios
from collections.abc import Iterable, Iterator

from aserver import unix

#: Signals to a group that do not ask a process to end, although their default action ends or halts it.
PASSING = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU})
#: Signals that only the master obeys. TSTP and CONT are not among them: Ctrl-Z halts the whole job, and `fg` wakes it.
GROUP_SIGNALS = PASSING | {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
#: The kernel sends these to a background job that uses its terminal.
_BACKGROUND = frozenset({signal.SIGTTIN, signal.SIGTTOU})


@contextlib.contextmanager
def blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Keep `signals` pending in this thread, and blocked in the processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_master(signals: Iterable[signal.Signals]) -> None:
    """Let `signals` pass without effect, also signals that came while they were blocked.

    No-op handlers do that, because an exec resets them: the app's subprocesses start with the defaults. TTIN and TTOU
    are ignored instead (SIG_IGN, which subprocesses inherit), but only where a terminal controls this process. There
    the kernel would answer a handler by beginning the read or write again for ever, with a signal to the whole group
    each time (tty_check_change). Ignored, a background job's read fails with EIO, and its output appears even after
    `stty tostop`.
    """
    signals = frozenset(signals)
    ignored = signals & _BACKGROUND if controls_us() else frozenset[signal.Signals]()
    unix.ignore_signals(signals - ignored)
    unix.discard_signals(ignored)


@contextlib.contextmanager
def background_output() -> Iterator[None]:
    """Use it around a write to the terminal. With TTOU blocked, the write succeeds in a background job, too."""
    with blocked((signal.SIGTTOU,)):
        yield


@contextlib.contextmanager
def modes_kept() -> Iterator[None]:
    """Give the terminal, at the end, the modes that it has now: a debugger's prompt that is killed leaves others."""
    try:
        modes = termios.tcgetattr(0)
    except termios.error:  # no terminal
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(termios.error), background_output():
            if termios.tcgetattr(0) != modes:
                termios.tcsetattr(0, termios.TCSANOW, modes)


def controls_us() -> bool:
    """Whether a terminal controls this process, and signals it for reasons of its own (credentials(7))."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        # Anything but ENXIO is about the file: a container may lack it.
        return error.errno != errno.ENXIO and any(map(os.isatty, range(3)))
    os.close(fd)
    return True
