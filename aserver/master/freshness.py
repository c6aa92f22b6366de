"""Whether the code on disk is still the code that runs: half-deployed code is named before it bites (incident 1).

Runs in the master, every few seconds. It only looks at modification times and sizes; it never imports, never reloads.
"""

import os
from collections.abc import Mapping

#: As `importer.fingerprint` makes it: path to (mtime in ns, size in bytes).
Fingerprint = Mapping[str, tuple[int, int]]

#: So many names are enough for a line.
NAMED = 5


class Freshness:
    """Of one generation's code."""

    def __init__(self, files: Fingerprint) -> None:
        self.files = files
        self._reported: frozenset[str] = frozenset()

    def news(self) -> str | None:
        """The files that have changed, as one sentence, each set of them once."""
        changed = frozenset(path for path, known in self.files.items() if _state(path) != known)
        if changed <= self._reported:
            return None
        self._reported = changed
        names = ", ".join(sorted(changed)[:NAMED])
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        return f"{names}{more} changed on disk since the code was loaded"


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
