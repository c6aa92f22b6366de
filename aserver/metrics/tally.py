"""How often the master's events happened, by reason or outcome: labels of a bounded number. Pure."""

import re
from collections.abc import Mapping

from aserver.metrics.families import Family, labelled, single

#: Why a worker left before its time: settings, orders, and, from "stuck" on, faults.
REASONS = (
    "max_requests",
    "max_lifetime",
    "max_memory",
    "order",
    "sigterm",
    "stuck",
    "hung",
    "out_of_memory",
    "killed",
    "crashed",
    "exited",
    "breached",
    "overdue",
    "other",
)
OUTCOMES = ("complete", "failed", "refused", "incomplete", "superseded", "abandoned")

#: How each reason reads in the clauses of `core/explain` and of the workers.
_CLAUSES = {
    reason: re.compile(clause)
    for reason, clause in {
        "max_requests": r"\(max_requests\)$",
        "max_lifetime": r"\(max_lifetime\)$",
        "max_memory": r"\(max_memory\)$",
        "order": r"^aserver recycle$",
        "sigterm": r"^it got SIGTERM$",
        "stuck": r"\(request_timeout\)$",
        "hung": "its event loop stood still",
        "overdue": "took too long|was not ready in time",
        "out_of_memory": "ran out of memory",
        "killed": "from outside aserver",
        "crashed": "^crashed with",
        "exited": "exit code",
    }.items()
}


def name_of(event: str, reason: str, outcome: str) -> str:
    """The name under which an event is counted; empty if it is not."""
    if event in ("reload.ends", "upgrade.ends"):
        return f"{event}/{outcome}"
    if event == "worker.breached":
        return "restart/breached"
    if event in ("worker.recycle", "worker.died"):
        found = (name for name, clause in _CLAUSES.items() if clause.search(reason))
        return f"restart/{next(found, 'other')}"
    return event if event == "worker.boot_failed" else ""


def of_counts(counts: Mapping[str, int]) -> list[Family]:
    """The families; an event that has not happened is 0, so that its first time is seen as a rise."""
    ends = {each: counts.get(f"reload.ends/{each}", 0) + counts.get(f"upgrade.ends/{each}", 0) for each in OUTCOMES}
    return [
        labelled("aserver.worker.restarts", "reason", {each: counts.get(f"restart/{each}", 0) for each in REASONS}),
        single("aserver.worker.boot_failures", counts.get("worker.boot_failed", 0)),
        labelled("aserver.reloads", "outcome", ends),
    ]
