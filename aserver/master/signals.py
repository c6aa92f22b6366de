"""The master's signals, and the runner's answer to each.

Runs in the master's loop. A handler only notes its signal and wakes the loop, which obeys in a turn of its own: a
handler may run in the middle of anything, such as a record that is being logged.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator

from aserver import terminal, unix
from aserver.master.core.events import StopMode
from aserver.master.runner import Runner

log = logging.getLogger("aserver.master")

#: Seconds in which the same signal to stop counts once: timeout(1) and some supervisors send it to the process and to
#: its group, a terminal's Ctrl-C comes by itself and from a wrapper such as npm or make.
ECHO = 1.0


class _Stops:
    """Obeys the signals to stop, each once within ECHO."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._heard: dict[signal.Signals, float] = {}  # when it counted last

    def __call__(self, signum: signal.Signals, mode: StopMode) -> None:
        """Obey `signum`. A Ctrl-C at a debugger's prompt is left to the worker, which the terminal has sent it, too."""
        if signum is signal.SIGINT and self._runner.at_prompt:
            return
        now = time.monotonic()
        if now - self._heard.get(signum, -ECHO) < ECHO:
            log.info("%s again within %g s: it counts once; from then on it hurries the stop", signum.name, ECHO)
            return
        self._heard[signum] = now
        self._runner.stop(mode, signum.name)


@contextlib.contextmanager
def handled(loop: asyncio.AbstractEventLoop, runner: Runner) -> Iterator[None]:
    """Obey the master's signals (docs/signals.md) within this context."""
    stop = _Stops(runner)
    actions: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGTERM: lambda: stop(signal.SIGTERM, StopMode.GRACEFUL),
        signal.SIGINT: lambda: stop(signal.SIGINT, StopMode.QUICK),
        signal.SIGQUIT: lambda: stop(signal.SIGQUIT, StopMode.QUICK),
        signal.SIGHUP: lambda: runner.reload("SIGHUP"),
        signal.SIGUSR1: runner.reopen_logs,
        signal.SIGUSR2: lambda: runner.upgrade("SIGUSR2"),
        signal.SIGTTIN: lambda: runner.scale(delta=1),
        signal.SIGTTOU: lambda: runner.scale(delta=-1),
        signal.SIGWINCH: lambda: _park(runner),
    }
    noted = runner.noted

    def obey() -> None:
        """Obey a single signal in each turn: neither a flood nor an action that fails keeps the others from theirs."""
        if noted:
            action = actions[signal.Signals(noted.pop(0))]
            if noted:
                loop.call_soon(obey)
            action()

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # none may come in between
    try:
        for signum in actions:
            loop.add_signal_handler(signum, obey)
        # The loop hears of signals by bytes in its wakeup socket, which takes 278. A signal that finds it full wakes
        # the loop all the same, but only the notes say which signal it was.
        unix.note_signals(actions, noted)
        # asyncio lets the interpreter complain of the full socket, whose traceback tears the lines on standard error;
        # uvloop does not.
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        yield
    finally:
        for signum in actions:
            loop.remove_signal_handler(signum)


def _park(runner: Runner) -> None:
    """Obey SIGWINCH, unless it may be a terminal's, which sends it whenever its size changes (gunicorn does as we)."""
    if terminal.controls_us():
        log.debug("SIGWINCH is left aside: a terminal controls this process, and sends it when its size changes")
        return
    log.info("SIGWINCH: all workers leave, the sockets stay; SIGTTIN or SIGHUP brings them back")
    runner.scale(to=0)


def obey_pending() -> None:
    """Let through the signals that came while they were blocked, such as during an upgrade's exec."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
