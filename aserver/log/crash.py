"""What a process can still say when Python no longer runs: faulthandler's stacks, kept in a memory file.

The zygote or worker writes it through `faulthandler`, the master reads it. The file cannot block and outlives SIGKILL.
"""

import os
from typing import NamedTuple

#: A stack of 100 threads; a file that only faulthandler writes is never larger by much.
LONGEST = 256 << 10


class Trace(NamedTuple):
    """What was dumped since the last look, and where the next look begins."""

    text: str
    offset: int


def read_trace(fd: int, offset: int = 0) -> Trace:
    """Read what stands behind `offset` (bytes) without moving the writer's place.

    The result's `offset` is for the next call, so that no dump is reported twice (trap 84). OSError if `fd` is closed.
    """
    data = os.pread(fd, LONGEST, offset)
    # faulthandler writes ASCII and escapes the rest (Python/traceback.c); a file name cut in two must not matter.
    return Trace(data.decode("utf-8", "backslashreplace").strip(), offset + len(data))
