"""Notes that a debugger may hold this process, so that the master does not take its silence for a hang.

Runs in a worker that is alone. pdb, pydevd and debugpy set a trace function, or register with `sys.monitoring` (3.12)
as the debugger, before they stop at a line. They call these functions by their names in `sys`, so the functions there
are replaced; an audit hook would cost each import and each file of the application.
"""

import sys
from collections.abc import Callable
from typing import Any


class DebuggerWatch:
    """Calls `note(True)` when a debugger comes, and, from `look`, `note(False)` when it has gone."""

    def __init__(self, note: Callable[[bool], None]) -> None:
        self._note = note
        self._noted = False
        sys.settrace = self._noting(sys.settrace)
        monitoring: Any = getattr(sys, "monitoring", None)
        if monitoring is not None:
            monitoring.use_tool_id = self._noting(monitoring.use_tool_id)

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            self._noted = True
            self._note(True)
            return original(*arguments)

        return noting

    def look(self) -> None:
        """Whether it is still there. Called at each heartbeat: then, at least, it does not hold the loop."""
        if not self._noted:
            return
        monitoring: Any = getattr(sys, "monitoring", None)
        if sys.gettrace() is None and (monitoring is None or monitoring.get_tool(monitoring.DEBUGGER_ID) is None):
            self._noted = False
            self._note(False)
