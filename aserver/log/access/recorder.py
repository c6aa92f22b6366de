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
from aserver.log.access.record import AccessRecord, PlainLines
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

    `plain`, where lines may also be made elsewhere, has what they are made of.

    To be made in the worker, after the fork: a format may hold the pid. Raises ConfigError for a bad format.
    """

    __slots__ = ("plain", "timed", "write")

    def __init__(self, config: AccessSettings, lines: Lines, *, colour: bool = False) -> None:
        formatter = compile_format(config.access_log_format, pid=os.getpid(), limit=lines.limit, colour=colour)
        self.timed = formatter.timed
        self.write, self.plain = _writer(formatter, lines, lines.limit)
        exclude = tuple(prefix.encode() for prefix in config.access_log_exclude)
        if exclude:
            self.plain = None
            write = self.write

            def write_some(record: AccessRecord) -> None:
                if not record.target.startswith(exclude):
                    write(record)

            self.write = write_some


def _writer(
    formatter: Formatter, lines: Lines, limit: int | None
) -> tuple[Callable[[AccessRecord], None], PlainLines | None]:
    """Make `AccessLog.write` and `AccessLog.plain`.

    Closures, because their variables are found in half the time of an object's attributes. All lines of a turn of the
    loop are made at its end. That costs two thirds of making each one between the requests, when the interpreter has
    just done other things.
    """
    make_lines, stamp, shortened, _timed, plain = formatter
    batch = lines.batch
    append = batch.append
    moment = [""]
    renew = _clock(stamp, moment)

    def make(entries: list[AccessRecord | str]) -> list[str]:
        """Make the lines of a turn. Those that were made elsewhere stay in their places."""
        records = [each for each in entries if not isinstance(each, str)]
        if not records:
            return entries  # type: ignore[return-value]  # all are lines
        if len(records) < len(entries):
            return [line for each in entries for line in ((each,) if isinstance(each, str) else make([each]))]
        (text,) = moment
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
            renew()
            append(record)
            lines.begin()

    lines.make = make
    if plain is None or lines.wants_records:
        return write, None
    return write, PlainLines(batch, moment, renew, lines.begin, *plain, limit)


def _clock(stamp: Callable[[When], str], moment: list[str]) -> Callable[[], None]:
    """Return the function that sets the time of all lines of a turn."""
    renew_at = 0.0

    def renew() -> None:
        nonlocal renew_at
        now = monotonic()
        if now >= renew_at:
            # The text of the current second. After the wall clock was set it is wrong for at most a second.
            wall = time.time_ns()
            renew_at = now + 1 - wall % 1_000_000_000 / 1e9
            local = time.localtime(wall // 1_000_000_000)
            when: When = (*local[:6], local.tm_gmtoff)
            moment[0] = stamp(when)

    return renew


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
