"""The access log of a worker: a line for each finished request.

Runs in the worker's loop. `protocol` calls it for every response, and when a WebSocket opens and ends. It must never
wait and never raise, because the request has been answered already. Records are kept until the loop's turn ends.
"""

import logging
import os
import time
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from aserver.log.access.format import Compiled, Formatter, compile_format
from aserver.log.access.record import AccessRecord
from aserver.log.access.timestamp import When
from aserver.log.setup import Lines

log = logging.getLogger("aserver.error")


class AccessSettings(Protocol):
    """The part of `config.Config` that this module reads."""

    @property
    def access_log_format(self) -> str: ...
    @property
    def access_log_exclude(self) -> tuple[str, ...]: ...


class AccessLog:
    """`write` takes a finished request; its line leaves at the end of the loop's turn. `timed`: it needs durations.

    To be made in the worker, after the fork: a format may hold the pid. Raises ConfigError for a bad format.
    """

    __slots__ = ("timed", "write")

    def __init__(self, config: AccessSettings, lines: Lines, *, colour: bool = False) -> None:
        formatter = compile_format(config.access_log_format, pid=os.getpid(), limit=lines.limit, colour=colour)
        self.timed = formatter.timed
        self.write = _writer(formatter, lines, lines.limit)
        exclude = tuple(prefix.encode() for prefix in config.access_log_exclude)
        if exclude:
            write = self.write

            def write_some(record: AccessRecord) -> None:
                if not record.target.startswith(exclude):
                    write(record)

            self.write = write_some


def _writer(formatter: Formatter, lines: Lines, limit: int | None) -> Callable[[AccessRecord], None]:
    """Make `AccessLog.write`: a closure, because its variables are found in half the time of an object's attributes.

    All lines of a turn of the loop are made at its end. That costs two thirds of making each one between the requests,
    when the interpreter has just done other things.
    """
    make_lines, stamp, shortened, _timed = formatter
    batch = lines.batch
    append = batch.append
    renew_at = 0.0
    text = ""

    def begin(record: AccessRecord) -> None:
        """Take the first record of a turn; all lines of the turn have its time."""
        nonlocal renew_at, text
        now = monotonic()
        if now >= renew_at:
            # The text of the current second. After the wall clock was set it is wrong for at most a second.
            wall = time.time_ns()
            renew_at = now + 1 - wall % 1_000_000_000 / 1e9
            local = time.localtime(wall // 1_000_000_000)
            when: When = (*local[:6], local.tm_gmtoff)
            text = stamp(when)
        append(record)
        lines.begin()

    def make(records: list[AccessRecord]) -> list[str]:
        try:
            made = make_lines(records, text)
        except Exception:  # noqa: BLE001 - a format may show objects of the application's scope
            made = _make_one_by_one(records, make_lines, text)
        if limit is not None and max(map(len, made), default=0) > limit:
            pairs = zip(records, made, strict=True)
            made = [each if len(each) <= limit else shortened([record], text)[0] for record, each in pairs]
        return made

    def write(record: AccessRecord) -> None:
        if batch:
            append(record)
        else:
            begin(record)

    lines.make = make
    return write


def _make_one_by_one(records: list[AccessRecord], make_lines: Compiled, text: str) -> list[str]:
    """Make a line for each record, where those of a whole tick could not be made together.

    Records of which no line can be made are taken out of `records`.
    """
    made: list[str] = []
    good: list[AccessRecord] = []
    for record in records:
        try:
            made += make_lines([record], text)
        except Exception as error:  # noqa: BLE001 - see above
            target = record.target.decode("ascii", "backslashreplace")
            log.error("%s: no access line can be made of what the application left (%r)", target, error)  # noqa: TRY400
        else:
            good.append(record)
    records[:] = good
    return made
