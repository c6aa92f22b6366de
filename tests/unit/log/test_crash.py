"""Stacks of a process that stands still or has died, read from its trace."""

import os
import subprocess
import sys

from aserver.log.crash import MOST_STACKS, read_trace
from tests.harness import PATIENCE, wait_for

TWO_DUMPS = """import faulthandler, sys
faulthandler.dump_traceback(int(sys.argv[1]))
sys.stdin.read(1)
faulthandler.dump_traceback(int(sys.argv[1]))
"""


def test_trap_84_a_dump_is_reported_once() -> None:
    trace = os.memfd_create("trace")
    child = subprocess.Popen(
        [sys.executable, "-c", TWO_DUMPS, str(trace)],
        pass_fds=[trace],
        stdin=subprocess.PIPE,
    )
    wait_for(lambda: read_trace(trace).text.endswith("in <module>"), what="the first dump")
    first = read_trace(trace)
    assert "line 2 in <module>" in first.text
    assert read_trace(trace, first.offset) == ("", first.offset)
    child.communicate(b"x", timeout=PATIENCE)
    second = read_trace(trace, first.offset)
    assert "line 4 in <module>" in second.text
    assert "line 2" not in second.text
    os.close(trace)


def test_a_filled_trace_costs_no_time_and_its_end_is_what_is_told() -> None:
    """The application may fill the file: 15 s of comparing every stack with every other, and 256 KB of control
    characters in the log. Counted by the length of what comes of it. Fails without MOST_STACKS, with the beginning of a
    long file instead of its end, and without `printable`.
    """
    trace = os.memfd_create("trace")
    os.write(trace, b"".join(b"%d\n\n" % number for number in range(200_000)) + b"  File the real one")
    text, offset = read_trace(trace)
    assert len(text.split("\n")) == MOST_STACKS + 1
    assert " stacks before these are left out]\n" in text
    assert text.endswith("\n199999\n  File the real one")
    assert offset == os.fstat(trace).st_size
    os.ftruncate(trace, 1 << 40)
    os.pwrite(trace, b"\x1b[31m\r\x07\xff\xc2\x85the last\n", (1 << 40) - 20)
    text, offset = read_trace(trace, offset)
    assert text == "\\x1b[31m\\r\\x07\\xff\\x85the last"
    assert offset == 1 << 40
    os.ftruncate(trace, 0)
    assert read_trace(trace, offset).text == ""
    os.close(trace)
