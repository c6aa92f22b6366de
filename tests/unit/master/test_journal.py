"""The records that are kept, and the fields that the log has of them."""

import json
import logging
import re
from pathlib import Path

import pytest

from aserver.log.layout import FACTS, JsonLayout
from aserver.master.core.events import Say
from aserver.master.journal import MOST_DETAIL, MOST_RECORDS, Journal

READY = Say("info", "worker 1 is ready", event="worker.ready", worker=1, generation=2)


def test_the_log_has_the_fields_that_are_set(caplog: pytest.LogCaptureFixture) -> None:
    """Fails without `extra`: a JSON log has prose alone."""
    journal = Journal()
    with caplog.at_level(logging.INFO):
        journal.say(READY)
        journal.say(Say("warning", "half a line"))
    (record, plain) = caplog.records
    facts = vars(record)
    assert (facts["event"], facts["worker"], facts["generation"]) == ("worker.ready", 1, 2)
    assert "outcome" not in facts
    assert "event" not in vars(plain)
    assert [each.event for each in journal.records] == ["worker.ready"]


ROOT = Path(__file__).parents[3]
SUBJECTS = "server|zygote|generation|worker|code|reload|upgrade|scale|logs|listener|admin"


def test_events_and_fields_are_those_that_are_promised(caplog: pytest.LogCaptureFixture) -> None:
    """Programs rely on them. Fails with an event or a field that docs/operate.md does not have, or that is gone."""
    chapter = (ROOT / "docs" / "operate.md").read_text().split("## Events\n")[1]
    rows = [line.split("|")[1] for line in chapter.splitlines() if line.startswith("| `")]
    told = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    sources = " ".join(path.read_text() for path in (ROOT / "aserver" / "master").rglob("*.py"))
    events = set(re.findall(rf'"((?:{SUBJECTS})\.[a-z_]+)"', sources))
    assert len(told) == len(set(told))
    assert set(told) == events | set(FACTS)

    with caplog.at_level(logging.INFO):
        more = {"event": "reload.ends", "reason": "a deploy", "outcome": "complete", "generation": 2, "worker": 1}
        Journal().say(Say("info", "reload complete", **more))  # type: ignore[arg-type]
    (line,) = JsonLayout("master").render(caplog.records[0], None)
    found = json.loads(line)
    assert {name: found[name] for name in more} == more
    promised = {"time", "level", "process", "pid", "logger", "message"}
    assert found.keys() == promised | more.keys()


def test_the_last_records_are_kept_whatever_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By number, and not larger than they may be. Fails without a bound."""
    journal = Journal()
    caplog.set_level(logging.CRITICAL, "aserver.master")
    for _ in range(MOST_RECORDS + 5):
        journal.say(Say("debug", "a decision", "x" * 20_000, event="worker.fork"))
    assert len(journal.records) == MOST_RECORDS
    assert (journal.records[0].number, journal.last) == (6, MOST_RECORDS + 5)
    assert len(journal.records[0].detail) == MOST_DETAIL
    assert [each.number for each in journal.since(journal.last - 2)] == [journal.last - 1, journal.last]


def test_numbers_go_on_after_an_upgrade() -> None:
    """Fails with a count from 1: a follower that asks for all after 3 misses them."""
    before, after = Journal(), Journal()
    for _ in range(3):
        before.say(READY)
    after.restore(list(before.records), {})
    heard: list[int] = []
    after.followers.append(lambda record: heard.append(record.number))
    after.say(READY)
    assert heard == [4]
    found = after.latest("worker.died", "worker.ready")
    assert found is not None
    assert found.number == 4
    assert after.latest("worker.died") is None
