"""A debugger is noted before it stops at a line, and until it has gone."""

import sys
from types import FrameType
from typing import Any

import pytest

from aserver.worker.debugger import DebuggerWatch


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    monkeypatch.setattr(sys, "settrace", sys.settrace)
    if sys.version_info >= (3, 12):
        monkeypatch.setattr(sys.monitoring, "use_tool_id", sys.monitoring.use_tool_id)
    return []


def test_a_trace_function_is_noted_until_it_is_gone(notes: list[bool]) -> None:
    before = sys.gettrace()
    watch = DebuggerWatch(notes.append)
    watch.look()
    assert notes == []

    def trace(_frame: FrameType, _event: str, _argument: Any) -> None:
        return None

    sys.settrace(trace)
    watch.look()
    sys.settrace(before)
    assert notes == [True, True]
    if before is None:  # else coverage traces this test
        watch.look()
        assert notes == [True, True, False]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is of 3.12")
def test_a_debugger_that_monitors_is_noted(notes: list[bool]) -> None:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    watch = DebuggerWatch(notes.append)
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "a debugger")
    watch.look()
    monitoring.free_tool_id(monitoring.DEBUGGER_ID)
    watch.look()
    assert notes == [True, False]
