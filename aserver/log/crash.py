"""What a process can still say when Python no longer runs: faulthandler's stacks, kept in a memory file.

The zygote or worker writes it through `faulthandler`, the master reads it. The file cannot block and outlives SIGKILL.
"""

import os
from typing import NamedTuple

#: Where a worker's own stack begins; what is below it is the same in every dump.
_BOTTOM = "/aserver/worker/main.py"
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
    return Trace(tidy(data.decode("utf-8", "backslashreplace")), offset + len(data))


def tidy(text: str) -> str:
    """The stacks without what every worker has at the bottom (loop, worker, zygote), and each different one once.

    A signal and the abort that follows it dump the same stack; the list of extension modules says nothing new.
    """
    stacks: list[str] = []
    for block in text.strip().split("\n\n"):
        lines: list[str] = []
        for line in block.splitlines():
            if line.startswith("  File ") and _BOTTOM in line:
                if lines and "asyncio" in lines[-1] and lines[-1].endswith(" in run"):
                    lines.pop()
                break
            lines.append(line)
        # One thread's stack may follow another's heading ("Fatal Python error: ...") without a blank line.
        if lines and not lines[0].startswith("Extension modules") and "\n".join(lines) not in stacks:
            stacks.append("\n".join(lines))
    return "\n".join(stacks)
