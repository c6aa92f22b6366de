"""No work in signal context: by the source, and by what running processes really have installed."""

import ast
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aserver import terminal, unix
from aserver.master.core.events import StopMode
from tests.harness import PATIENCE, ServerProcess

pytestmark = pytest.mark.process

PACKAGE = Path(sys.modules["aserver"].__file__ or "").parent
#: Every place that has to do with signal handlers. A new one is to be looked at by whoever adds it here.
KNOWN = {
    ("unix.py", "signal.signal", "do_nothing"),  # install_wakeup, ignore_signals
    ("unix.py", "signal.signal", "note"),  # note_signals
    ("unix.py", "signal.signal", "signal.SIG_DFL"),  # reset_signals, keep_exit_statuses
    ("unix.py", "signal.signal", "own"),  # give_back_signals: Python's own, in a child that the app forks
    ("unix.py", "signal.signal", "signal.default_int_handler"),  # raise_on_interrupt: at a debugger's prompt
    ("unix.py", "signal.signal", "signal.SIG_IGN"),  # discard_signals: TTIN and TTOU under a terminal
    ("unix.py", "signal.set_wakeup_fd", "writer.detach()"),
    ("unix.py", "signal.set_wakeup_fd", "-1"),
    ("master/signals.py", "signal.set_wakeup_fd", "signal.set_wakeup_fd(-1)"),  # the same one, silent when full
    ("master/signals.py", "signal.set_wakeup_fd", "-1"),
    (
        "master/signals.py",
        "loop.add_signal_handler",
        "signum",
    ),  # these are callbacks of the loop: the handler only wakes it
    ("launch/embedded.py", "loop.add_signal_handler", "signum"),
    ("worker/main.py", "loop.add_signal_handler", "signal.SIGTERM"),
    ("worker/main.py", "loop.add_signal_handler", "signum"),
    ("worker/main.py", "faulthandler.register", "DUMP_SIGNAL"),  # C, writes to a memory file
}


def test_every_handler_is_known_and_empty() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            match called.rpartition(".")[2]:
                case "signal" if called == "signal.signal":
                    found.add((name, called, ast.unparse(node.args[1])))
                case "set_wakeup_fd" | "add_signal_handler":
                    found.add((name, called, ast.unparse(node.args[0])))
                case "register" if called.startswith("faulthandler"):
                    found.add((name, called, ast.unparse(node.args[0])))
                case "sigaction" | "setitimer":
                    found.add((name, called, ""))
                case _:
                    pass
    assert found == KNOWN
    handlers = {
        node.name: node
        for node in ast.walk(ast.parse((PACKAGE / "unix.py").read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    [only] = handlers["do_nothing"].body
    assert isinstance(only, ast.Expr), "a docstring and nothing else"
    assert isinstance(only.value, ast.Constant)
    [only] = handlers["note"].body
    assert isinstance(only, ast.If), "one condition, and one append"
    [append] = only.body
    assert ast.unparse(append) == "noted.append(signum)"
    assert {ast.unparse(node) for node in ast.walk(only.test) if isinstance(node, ast.Call)} == {"len(noted)"}


def test_the_zygotes_handlers_are_the_empty_one() -> None:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGCHLD)}
    wake = unix.install_wakeup(before)
    try:
        assert {signal.getsignal(signum) for signum in before} == {unix.do_nothing}
        signal.raise_signal(signal.SIGUSR1)
        assert wake.recv(16) == bytes([signal.SIGUSR1])
    finally:
        signal.set_wakeup_fd(-1)
        for signum, handler in before.items():
            signal.signal(signum, handler)
        wake.close()


FLOOD = """
import asyncio, signal
from unittest.mock import Mock
from aserver.master.signals import handled

async def main():
    runner = Mock(noted=[], at_prompt=False)
    with handled(asyncio.get_running_loop(), runner):
        for _ in range(1000):  # the loop does not turn meanwhile
            signal.raise_signal(signal.SIGUSR1)
        for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGTTIN, signal.SIGTERM):
            signal.raise_signal(signum)
        while not runner.scale.called:
            await asyncio.sleep(0)
    print(runner.reopen_logs.call_count, *(f"{name}{args}" for name, args, _ in runner.method_calls[-4:]))

asyncio.run(main())
"""


def test_a_full_wakeup_socket_says_nothing_and_costs_no_order() -> None:
    """It takes 278 signals; asyncio would have the interpreter complain on standard error, in the middle of a line.

    Fails without warn_on_full_buffer=False, and without the notes: what comes after the 278th is lost (here: TTIN, so
    that this waits for ever).
    """
    done = subprocess.run([sys.executable, "-c", FLOOD], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    graceful, quick = (
        f"stop({mode!r}, {name!r})" for mode, name in ((StopMode.GRACEFUL, "SIGTERM"), (StopMode.QUICK, "SIGINT"))
    )
    assert done.stdout.strip() == f"256 reload('SIGHUP',) {graceful} {quick} scale()"


def test_signals_that_come_one_by_one_are_obeyed_one_by_one() -> None:
    """In their order, each as often as it came, up to 256 that wait. Fails with notes in a set."""
    noted: list[int] = []
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGTTIN)}
    unix.note_signals(before, noted)
    try:
        for signum in (signal.SIGTTIN, signal.SIGUSR1, signal.SIGTTIN):
            signal.raise_signal(signum)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert noted == [signal.SIGTTIN, signal.SIGUSR1, signal.SIGTTIN]


def caught(pid: int) -> set[int]:
    """The signals that have a handler, from proc_pid_status(5)."""
    mask = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert mask
    return {number for number in range(1, 65) if int(mask[1], 16) >> (number - 1) & 1}


#: The interpreter's own, or the C library's (32 and 33 are the threads'; SIGINT is Python's until replaced).
NOT_OURS = {32, 33}
CRASHES = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}


@pytest.mark.skipif(sys.platform != "linux", reason="needs proc_pid_status(5)")
def test_running_processes_have_no_other_handlers(server: Callable[..., ServerProcess]) -> None:
    running = server("tests.apps.raw:app")
    [zygote], [worker] = running.zygotes(), running.workers()
    asked = terminal.GROUP_SIGNALS | {signal.SIGCHLD}
    # Each of these is in KNOWN: the loops' (asyncio's and uvloop's are empty too), and the zygote's empty one.
    assert caught(running.pid) - NOT_OURS <= asked | {signal.SIGWINCH}
    assert caught(zygote.pid) - NOT_OURS == asked | CRASHES
    assert caught(worker.pid) - NOT_OURS <= CRASHES | asked
    assert caught(worker.pid) >= CRASHES | {signal.SIGUSR2}, "faulthandler's"
