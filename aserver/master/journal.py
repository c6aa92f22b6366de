"""The master's log: records are written, and those that have an event are kept, also through upgrades.

Runs in the master. docs/operate.md lists the events and promises the fields; a program may rely on both.
"""

import datetime
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from aserver.log.layout import FACTS
from aserver.master.core.events import Say
from aserver.metrics.tally import name_of

log = logging.getLogger("aserver.master")

#: Records that are kept.
MOST_RECORDS = 1000
#: Characters of a kept record's detail, such as a traceback: the log has it whole.
MOST_DETAIL = 8192


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A decision of the master, or something that has happened to it: the shape that `aserver events --json` prints."""

    number: int  # counted from 1, over upgrades, too
    time: str  # ISO 8601, UTC
    event: str
    level: str
    message: str
    worker: int | None = None
    pid: int | None = None
    generation: int | None = None
    reason: str = ""
    outcome: str = ""
    tickets: tuple[int, ...] = ()
    detail: str = ""


class Journal:
    """The last MOST_RECORDS records. `followers` are called with each new record; they must not raise."""

    def __init__(self) -> None:
        self.records: deque[Record] = deque(maxlen=MOST_RECORDS)
        self.followers: list[Callable[[Record], None]] = []
        self.last = 0  # number of the last record
        self.counts: dict[str, int] = {}  # of events, by `metrics/tally`

    def restore(self, records: list[Record], counts: dict[str, int]) -> None:
        """Take over the records and counts of this master's former image."""
        self.counts = counts
        self.records.extend(records)
        self.last = records[-1].number if records else 0

    def say(self, order: Say) -> None:
        """Log a record, and keep it if it has an event."""
        text = f"{order.text}\n{order.detail.rstrip()}" if order.detail else order.text
        facts = {name: value for name in FACTS if (value := getattr(order, name)) not in ("", None)}
        log.log(logging.getLevelNamesMapping()[order.level.upper()], "%s", text, extra=facts)
        if order.event:
            self._keep(order)

    def _keep(self, order: Say) -> None:
        if name := name_of(order.event, order.reason, order.outcome):
            self.counts[name] = self.counts.get(name, 0) + 1
        self.last += 1
        facts = {name: getattr(order, name) for name in FACTS if name != "event"}
        facts |= {"pid": order.pid, "tickets": order.tickets, "detail": order.detail[-MOST_DETAIL:]}
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        record = Record(number=self.last, time=time, event=order.event, level=order.level, message=order.text, **facts)
        self.records.append(record)
        for follower in list(self.followers):
            follower(record)

    def latest(self, *events: str) -> Record | None:
        """The last record of any of `events` that is kept."""
        return next((record for record in reversed(self.records) if record.event in events), None)

    def since(self, number: int) -> list[Record]:
        """The kept records after that `number`."""
        return [record for record in self.records if record.number > number]
