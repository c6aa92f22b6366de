"""The stacks of a process in which Python no longer runs: `faulthandler` writes them into a memory file.

Each process below the master has one, and the master reads it. It cannot block, and it outlives SIGKILL. The
application's code can write anything into it and cut it at any time, so it is read and never mapped.
"""

import os
from typing import NamedTuple

from aserver.log.access.escape import printable

#: The files in which a process's own stack begins; the frames below it are the same in every dump.
_BOTTOM = ("/aserver/worker/main.py", "/aserver/importer/target.py", "/aserver/zygote/", "/aserver/admin/main.py")
#: Bytes; enough for the stacks of 100 threads. The application can write more: then only the end is read.
LONGEST = 256 << 10
#: The most stacks that are told: the last, because a process that filled the file itself died at the end of it.
MOST_STACKS = 200


class Trace(NamedTuple):
    """The stacks that were dumped since the last look, and where the next look begins."""

    text: str
    offset: int


def read_trace(fd: int, offset: int = 0) -> Trace:
    """Read the file from `offset` (bytes) on, without moving the writer's place. OSError if `fd` is closed.

    The result's `offset` is for the next call, so that no dump is reported twice (docs/traps.md, 84).
    """
    size = os.fstat(fd).st_size
    begin = max(offset, size - LONGEST)
    data = os.pread(fd, LONGEST, begin)
    # faulthandler writes ASCII and escapes the rest (Python/traceback.c); a file name cut in two must not matter.
    text = data.replace(b"\0", b"").decode("utf-8", "backslashreplace")
    return Trace(tidy(printable(text)), begin + len(data))


def tidy(text: str) -> str:
    """The stacks without the frames that every worker has at the bottom (loop, worker, zygote), and each stack once.

    Frames of the import system between two modules say nothing either.

    A signal and the abort that follows it dump the same stack. The list of extension modules is left out.
    """
    stacks: dict[str, None] = {}
    blocks = text.strip().split("\n\n")
    for block in blocks[-MOST_STACKS:]:
        lines: list[str] = []
        for line in block.splitlines():
            if line.startswith("  File ") and any(bottom in line for bottom in _BOTTOM):
                if lines and "asyncio" in lines[-1] and lines[-1].endswith(" in run"):
                    lines.pop()
                break
            if "<frozen importlib" not in line and not line.endswith(" in import_module"):
                lines.append(line)
        # A thread's stack may follow another's heading ("Fatal Python error: ...") without a blank line.
        if lines and not lines[0].startswith("Extension modules"):
            stacks["\n".join(lines)] = None
    left_out = [f"[{len(blocks) - MOST_STACKS} stacks before these are left out]"] if len(blocks) > MOST_STACKS else []
    return "\n".join([*left_out, *stacks])
