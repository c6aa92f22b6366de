"""What the tests of real processes are made of: a server process, raw clients, load, and patience.

Every wait has a deadline and a reason; no test sleeps to let something happen.
"""

from tests.harness.client import ClosedEarlyError, RawConnection, RawResponse, fetch
from tests.harness.disks import tmpfs
from tests.harness.load import Load, Outcome
from tests.harness.notes import Notes
from tests.harness.processes import Process, descendants, process
from tests.harness.server import Address, ServerProcess
from tests.harness.terminal import Terminal
from tests.harness.tools import free_port, require_tool
from tests.harness.waiting import PATIENCE, eventually, wait_for

__all__ = [
    "PATIENCE",
    "Address",
    "ClosedEarlyError",
    "Load",
    "Notes",
    "Outcome",
    "Process",
    "RawConnection",
    "RawResponse",
    "ServerProcess",
    "Terminal",
    "descendants",
    "eventually",
    "fetch",
    "free_port",
    "process",
    "require_tool",
    "tmpfs",
    "wait_for",
]
