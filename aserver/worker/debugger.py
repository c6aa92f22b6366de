"""Notes that a debugger may hold this process, so that the master does not take its silence for a hang.

Runs in a worker that is alone. pdb, pydevd and debugpy set a trace function, or register with `sys.monitoring` (3.12)
as the debugger, before they stop at a line. They call these functions by their names in `sys`, so the functions there
are replaced; an audit hook would cost each import and each file of the application. pdb's prompt, also that of
`pdb.post_mortem`, which traces nothing, is `cmd.Cmd.cmdloop`.
"""

import cmd
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from aserver import unix
from aserver.ipc.board import Debugged


class DebuggerWatch:
    """Calls `note` when a debugger comes, when it is at its prompt, and, from `look`, when it has gone."""

    def __init__(self, note: Callable[[Debugged], None]) -> None:
        self._note = note
        self._noted = False
        if _is_here():  # it started the server, and has followed the forks
            self._be(Debugged.PERHAPS)
            return
        sys.settrace = self._noting(sys.settrace)
        cmd.Cmd.cmdloop = self._prompting(cmd.Cmd.cmdloop)  # type: ignore[method-assign]
        monitoring: Any = getattr(sys, "monitoring", None)
        if monitoring is not None:
            monitoring.use_tool_id = self._noting(monitoring.use_tool_id)

    def _be(self, state: Debugged) -> None:
        self._noted = state is not Debugged.NO
        self._note(state)

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            self._be(Debugged.PERHAPS)
            return original(*arguments)

        return noting

    def _prompting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A prompt that holds the loop. Ctrl-C comes back to it, and only to it."""

        def cmdloop(prompt: cmd.Cmd, *arguments: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return original(prompt, *arguments)
            self._be(Debugged.AT_PROMPT)  # also after a KeyboardInterrupt: the master may not have heard of it yet
            unix.raise_on_interrupt()
            try:
                result = original(prompt, *arguments)
            finally:
                unix.ignore_signals((signal.SIGINT,))  # `continue` leaves a handler that would open the prompt
            self._be(Debugged.PERHAPS)
            return result

        return cmdloop

    def look(self) -> None:
        """Note whether the debugger is still there. Called at each heartbeat: then it does not hold the loop."""
        if self._noted:
            self._be(Debugged.PERHAPS if _is_here() else Debugged.NO)


def _is_here() -> bool:
    monitoring: Any = getattr(sys, "monitoring", None)
    return sys.gettrace() is not None or (
        monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None
    )
