"""The access log of one worker: a line for each finished request, at nearly no cost.

Runs in the worker's loop, called by `protocol` for every response and every WebSocket open and close. It must never
wait and never raise: what is logged has already been answered.
"""

import logging
import os
import sys
import time
from time import monotonic
from typing import Protocol

from aserver.log.access import Record, When, compile_format
from aserver.log.setup import Logging

log = logging.getLogger("aserver.error")


class AccessSettings(Protocol):
    """The part of `config.Config` that is read here."""

    @property
    def access_log_format(self) -> str: ...
    @property
    def access_log_exclude(self) -> tuple[str, ...]: ...


class AccessLog:
    """`write` takes a finished request; its line leaves at the end of the loop's tick.

    Made in the worker, after the fork (a format may hold the pid). Raises ConfigError for a bad format.
    """

    __slots__ = ("_exclude", "_limit", "_line", "_lines", "_renew_at", "_shortened", "_stamp", "_time")

    def __init__(self, config: AccessSettings, logs: Logging) -> None:
        if logs.lines is None:
            raise ValueError("there is no access log: accesslog is off")
        limit = logs.access.limit if logs.access is not None else None
        formatter = compile_format(config.access_log_format, pid=os.getpid(), limit=limit)
        self._limit = limit or sys.maxsize
        self._line, self._stamp, self._shortened = formatter
        self._lines = logs.lines
        self._exclude = tuple(prefix.encode() for prefix in config.access_log_exclude)
        self._renew_at = 0.0
        self._time = ""

    def write(self, record: Record) -> None:
        """Write one line, unless the path is excluded."""
        if self._exclude and record.target.startswith(self._exclude):
            return
        lines = self._lines
        batch = lines.batch
        if not batch:  # the first of this tick, whose lines all have its time
            if (now := monotonic()) >= self._renew_at:
                self._renew(now)
            lines.begin()
        try:
            line = self._line(record, self._time)
            if len(line) > self._limit:
                line = self._shortened(record, self._time)
        except Exception as error:  # noqa: BLE001 - the scope is the application's by now, and may hold anything
            target = record.target.decode("ascii", "backslashreplace")
            why = "the application changed its scope"
            log.error("%s %s: no access line, %s (%r)", record.method, target, why, error)  # noqa: TRY400
            return
        batch.append(line)
        if len(batch) >= lines.most:
            lines.flush()

    def _renew(self, now: float) -> None:
        """Make the text of the second that has begun; right again at most a second after the wall clock was set."""
        wall = time.time_ns()
        self._renew_at = now + 1 - wall % 1_000_000_000 / 1e9
        local = time.localtime(wall // 1_000_000_000)
        when: When = (*local[:6], local.tm_gmtoff)
        self._time = self._stamp(when)
