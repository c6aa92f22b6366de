"""What a process can still say when Python no longer runs: faulthandler's stacks, kept in a memory file.

The zygote or worker writes it through `faulthandler`, the master reads it. The file cannot block and outlives SIGKILL.
The application's code can write anything into it and cut it at any time, so it is read and never mapped.
"""

import os
from typing import NamedTuple

from aserver.log.access.escape import printable

#: Where a worker's own stack begins; what is below it is the same in every dump.
_BOTTOM = "/aserver/worker/main.py"
#: A stack of 100 threads. The application can write into the file too, so of more only the end is read.
LONGEST = 256 << 10
#: So many stacks are told, the last ones: of a process that filled the file itself, its end is among them.
MOST_STACKS = 200


class Trace(NamedTuple):
    """What was dumped since the last look, and where the next look begins."""

    text: str
    offset: int


def read_trace(fd: int, offset: int = 0) -> Trace:
    """Read what stands behind `offset` (bytes) without moving the writer's place.

    The result's `offset` is for the next call, so that no dump is reported twice (trap 84). OSError if `fd` is closed.
    """
    size = os.fstat(fd).st_size
    begin = max(offset, size - LONGEST)
    data = os.pread(fd, LONGEST, begin)
    # faulthandler writes ASCII and escapes the rest (Python/traceback.c); a file name cut in two must not matter.
    text = data.replace(b"\0", b"").decode("utf-8", "backslashreplace")
    return Trace(tidy(printable(text)), begin + len(data))


def tidy(text: str) -> str:
    """The stacks without what every worker has at the bottom (loop, worker, zygote), and each different one once.

    A signal and the abort that follows it dump the same stack; the list of extension modules says nothing new.
    """
    stacks: dict[str, None] = {}
    blocks = text.strip().split("\n\n")
    for block in blocks[-MOST_STACKS:]:
        lines: list[str] = []
        for line in block.splitlines():
            if line.startswith("  File ") and _BOTTOM in line:
                if lines and "asyncio" in lines[-1] and lines[-1].endswith(" in run"):
                    lines.pop()
                break
            lines.append(line)
        # One thread's stack may follow another's heading ("Fatal Python error: ...") without a blank line.
        if lines and not lines[0].startswith("Extension modules"):
            stacks["\n".join(lines)] = None
    left_out = [f"[{len(blocks) - MOST_STACKS} stacks before these are left out]"] if len(blocks) > MOST_STACKS else []
    return "\n".join([*left_out, *stacks])
