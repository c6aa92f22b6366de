"""Several processes on a terminal that is behind: half a line keeps the others off until it is out."""

import os
import subprocess
import sys
import termios
import tty

from tests.harness import PATIENCE

WRITER = """
import sys
from aserver.log.deferred import Sink, open_log
sink = Sink.for_fd(open_log("-", which="error"))
for number in range(300):
    if number % 3 == 0:
        sink.replace(open_log("-", which="error"))  # as SIGUSR1 does
    sink.write((f"{sys.argv[1]}{number} " + sys.argv[1] * 900 + "\\n").encode())
sys.exit(sink.close(30))
"""


def test_trap_77_lines_stay_whole_on_a_terminal_that_is_behind() -> None:
    reader, writer = os.openpty()
    tty.setraw(writer, termios.TCSANOW)
    children = [subprocess.Popen([sys.executable, "-c", WRITER, name], stderr=writer) for name in "abc"]
    os.close(writer)
    got = b""
    try:
        while piece := os.read(reader, 500):
            got += piece
    except OSError:  # EIO: the last writer is gone
        pass
    os.close(reader)
    assert [child.wait(PATIENCE) for child in children] == [0, 0, 0]
    expected = {f"{name}{number} {name * 900}".encode() for name in "abc" for number in range(300)}
    found = got.splitlines()
    assert len(found) == 900
    assert set(found) == expected
