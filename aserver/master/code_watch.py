"""Whether the code on disk is still the code that runs: half-deployed code is named before it bites (incident 1).

Runs in the master, every few seconds. It only looks at modification times and sizes; it never imports, never reloads.
"""

import os
import time
from collections.abc import Iterator, Mapping

from aserver.log.access.escape import printable

#: As `importer.fingerprint` makes it: path to (mtime in ns, size in bytes).
Fingerprint = Mapping[str, tuple[int, int]]

#: So many names are enough for a line.
NAMED = 5


#: Seconds that one look may take of the master's time. A process that runs the application's code names the paths, and
#: one that leads through long chains of links takes milliseconds.
LOOK_TIME = 0.02


class CodeWatch:
    """Of one generation's code."""

    def __init__(self, files: Fingerprint) -> None:
        self.files = files
        self._left: Iterator[tuple[str, tuple[int, int]]] = iter(())
        self._changed: set[str] = set()
        self._reported: frozenset[str] = frozenset()
        self.under_way = False  # a round that had no time to look at all of them: call `news` again soon

    def news(self, seconds: float = LOOK_TIME) -> str | None:
        """The files that have changed, as one sentence, each set of them once; None also while a round is under way."""
        if not self.under_way:
            self._left, self._changed, self.under_way = iter(self.files.items()), set(), True
        end = time.monotonic() + seconds
        for path, known in self._left:
            if _state(path) != known:
                self._changed.add(path)
            if time.monotonic() >= end:
                return None
        self.under_way = False
        changed = frozenset(self._changed)
        if changed <= self._reported:
            return None
        self._reported = changed
        names = ", ".join(printable(path) for path in sorted(changed)[:NAMED])
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        return f"{names}{more} changed on disk since the code was loaded"


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
