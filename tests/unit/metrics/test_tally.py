"""Each way in which a worker can go has a reason of its own, by the very clauses that the log has."""

import pytest

from aserver.master.core.events import Say
from aserver.master.core.explain import explain_exit
from aserver.master.core.model import Intent
from aserver.master.journal import Journal
from aserver.metrics.families import FAMILIES
from aserver.metrics.tally import OUTCOMES, REASONS, name_of, of_counts


@pytest.mark.parametrize(
    ("reason", "how"),
    [
        ("exited", explain_exit(1, None, Intent.NONE)),
        ("killed", explain_exit(None, "SIGKILL", Intent.NONE)),
        ("killed", explain_exit(None, "SIGTERM", Intent.NONE)),
        ("out_of_memory", explain_exit(None, "SIGKILL", Intent.NONE, out_of_memory="oom_kill")),
        ("crashed", explain_exit(None, "SIGSEGV", Intent.NONE)),
        ("hung", explain_exit(None, "SIGABRT", Intent.HUNG)),
        ("overdue", explain_exit(None, "SIGKILL", Intent.OVERRAN)),
        ("overdue", explain_exit(None, "SIGKILL", Intent.SLOW_BOOT)),
        ("other", explain_exit(None, "SIGKILL", Intent.STOP)),
    ],
)
def test_a_death_is_counted_by_its_cause(reason: str, how: str) -> None:
    """Fails when `explain` says it in other words."""
    assert name_of("worker.died", how, "") == f"restart/{reason}"


def test_the_journal_counts_what_the_families_tell(caplog: pytest.LogCaptureFixture) -> None:
    """Fails if an event is not counted, or has no sample."""
    caplog.set_level("CRITICAL")
    journal = Journal()
    journal.say(Say("info", "due", event="worker.recycle", reason="900 requests served (max_requests)"))
    for outcome in ("complete", "complete", "failed"):
        journal.say(Say("info", "reload", event="reload.ends", outcome=outcome))
    journal.say(Say("info", "upgrade", event="upgrade.ends", outcome="complete"))
    journal.say(Say("error", "no boot", event="worker.boot_failed"))
    restarts, failures, reloads = of_counts(journal.counts)
    assert {s.labels["reason"]: s.value for s in restarts.samples} == dict.fromkeys(REASONS, 0) | {"max_requests": 1}
    assert [sample.value for sample in failures.samples] == [1]
    found = {s.labels["outcome"]: s.value for s in reloads.samples}
    assert found == dict.fromkeys(OUTCOMES, 0) | {"complete": 3, "failed": 1}


def test_counters_and_gauges_have_a_help_that_is_a_sentence() -> None:
    assert all(text.endswith(".") for _, _, text in FAMILIES.values())
