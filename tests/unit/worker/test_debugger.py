"""A debugger is noted before it stops at a line, at its prompt, and until it has gone."""

import cmd
import io
import signal
import sys
from types import FrameType
from typing import Any

import pytest

from aserver.ipc.board import Debugged
from aserver.worker.debugger import DebuggerWatch


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[Debugged]:
    monkeypatch.setattr(cmd.Cmd, "cmdloop", cmd.Cmd.cmdloop)
    monkeypatch.setattr(sys, "settrace", sys.settrace)
    if sys.version_info >= (3, 12):
        monkeypatch.setattr(sys.monitoring, "use_tool_id", sys.monitoring.use_tool_id)
    return []


def test_a_trace_function_is_noted_until_it_is_gone(notes: list[Debugged]) -> None:
    before = sys.gettrace()
    watch = DebuggerWatch(notes.append)
    watch.look()
    assert notes == []

    def trace(_frame: FrameType, _event: str, _argument: Any) -> None:
        return None

    sys.settrace(trace)
    watch.look()
    sys.settrace(before)
    assert notes == [Debugged.PERHAPS] * 3
    if before is None:  # else coverage traces this test
        watch.look()
        assert notes == [*[Debugged.PERHAPS] * 3, Debugged.NO]


def test_a_debugger_that_has_followed_the_fork_is_noted(notes: list[Debugged]) -> None:
    """debugpy starts a server and goes along: its functions stay as they are, as it complains of others.

    Fails without `_is_here` in DebuggerWatch.
    """
    before, functions = sys.gettrace(), (sys.settrace, cmd.Cmd.cmdloop)
    sys.settrace(lambda *_: None)
    DebuggerWatch(notes.append)
    sys.settrace(before)
    assert notes == [Debugged.PERHAPS]
    assert functions == (sys.settrace, cmd.Cmd.cmdloop)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is of 3.12")
def test_a_debugger_that_monitors_is_noted(notes: list[Debugged]) -> None:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    watch = DebuggerWatch(notes.append)
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "a debugger")
    watch.look()
    monitoring.free_tool_id(monitoring.DEBUGGER_ID)
    watch.look()
    assert notes == [Debugged.PERHAPS, Debugged.PERHAPS, Debugged.NO]


def test_ctrl_c_at_a_prompt_raises_and_does_nothing_elsewhere(notes: list[Debugged]) -> None:
    """`pdb.post_mortem` traces nothing. The note outlives a KeyboardInterrupt, of which the master may hear later.

    Fails without `_prompting`.
    """
    watch = DebuggerWatch(notes.append)
    handler = signal.getsignal(signal.SIGINT)

    class Prompt(cmd.Cmd):
        use_rawinput = False

        def precmd(self, line: str) -> str:
            if line == "press":
                signal.raise_signal(signal.SIGINT)
            return line

        def do_quit(self, _: str) -> bool:
            return True

    try:
        with pytest.raises(KeyboardInterrupt):
            Prompt(stdin=io.StringIO("press\n"), stdout=io.StringIO()).cmdloop()
        assert notes == [Debugged.AT_PROMPT]
        signal.raise_signal(signal.SIGINT)
        Prompt(stdin=io.StringIO("quit\n"), stdout=io.StringIO()).cmdloop()
        watch.look()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert notes[1:3] == [Debugged.AT_PROMPT, Debugged.PERHAPS]
