"""Compares the code on disk with the code that was loaded, and logs which files have changed since.

Runs in the master, every few seconds: half a deploy is named before a new worker loads it. It only looks at
modification times and sizes; it never imports, never reloads.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping

from aserver.log.access.escape import printable

log = logging.getLogger("aserver.master")

#: As `importer.fingerprint` makes it: path to (mtime in ns, size in bytes).
Fingerprint = Mapping[str, tuple[int, int]]

#: The most names in a log line.
NAMED = 5
#: Seconds that a look may take. The paths come from a process that runs the application's code, and a path through long
#: chains of links takes milliseconds.
LOOK_TIME = 0.02


class CodeWatch:
    """The loaded files of all generations."""

    def __init__(self) -> None:
        self._code: dict[int, LoadedCode] = {}

    def know(self, generation: int, files: Fingerprint) -> None:
        """Watch the files of a generation, as its first process names them that has loaded the code."""
        if not files or generation in self._code:
            return
        before = max((number for number in self._code if number < generation), default=None)
        if before is not None and files == self._code[before].files:
            log.info("generation %d has the code of generation %d: no loaded file has changed", generation, before)
        self._code[generation] = LoadedCode(files)

    def look(self, generation: int, *, begin: bool) -> None:
        """Log which files of a generation have changed; without `begin` only go on with a round that is under way."""
        code = self._code.get(generation)
        if code is not None and (begin or code.under_way) and (news := code.news()):
            log.warning("%s (generation %d): a reload is due; until then the loaded code serves", news, generation)

    def forget(self, generation: int) -> None:
        """Look no more at the files of a generation."""
        self._code.pop(generation, None)

    def saved(self) -> dict[int, dict[str, tuple[int, int]]]:
        """The files of each generation, for the next image of this master."""
        return {generation: dict(code.files) for generation, code in self._code.items()}


class LoadedCode:
    """The files of a generation."""

    def __init__(self, files: Fingerprint) -> None:
        self.files = files
        self._left: Iterator[tuple[str, tuple[int, int]]] = iter(())
        self._changed: set[str] = set()
        self._reported: frozenset[str] = frozenset()
        self.under_way = False  # the last look had no time for all files: call `news` again soon

    def news(self, seconds: float = LOOK_TIME) -> str | None:
        """The files that have changed, as a sentence, each set of them once; None also while a round is under way."""
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
