"""When a worker is to be recycled, and the reason that the log has. Each docstring says how it was seen to fail."""

import pytest

from aserver import unix
from aserver.ipc.messages import Fork
from aserver.worker import recycling
from aserver.worker.recycling import LOOK_PERIOD, RecycleLimits

BORN = 100.0


def limits(requests: int = 0, seconds: float = 0.0, memory: int = 0, metric: str = "private") -> RecycleLimits:
    return RecycleLimits(Fork(1, 1, 1, requests, seconds), BORN, memory, metric)


def test_without_limits_a_worker_lives_for_ever() -> None:
    """Fails where 0 is a limit like another."""
    assert limits().reached(10**9, BORN + 10**9) == ""


def test_requests_and_age() -> None:
    """Fails with `>` for `>=`, and with the age of the process's clock instead of `born`."""
    each = limits(requests=5, seconds=60.0)
    assert each.reached(4, BORN + 59.9) == ""
    assert each.reached(5, BORN) == "5 requests served, its limit is 5 (max_requests)"
    assert each.reached(4, BORN + 60) == "60 s old, its limit is 60 s (max_lifetime)"


@pytest.mark.parametrize("metric", ["rss", "pss", "private"])
def test_memory_by_each_metric(monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    """The sums are the kernel's, in bytes. Fails with another line of smaps_rollup for a metric."""
    monkeypatch.setattr(unix, "smaps_rollup", lambda: {"Pss": 5 << 20, "Private_Clean": 2 << 20, "Private_Dirty": 1})
    said = limits(memory=1 << 20, metric=metric).reached(0, BORN)
    used = {"pss": "5 MiB", "private": "2 MiB"}.get(metric, "")
    assert said.startswith(used)
    assert said.endswith(f" MiB of {metric} memory used, the limit is 1MiB (max_memory)")
    assert limits(memory=1 << 40, metric=metric).reached(0, BORN) == ""


def test_memory_is_looked_at_once_a_period_and_closely_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """smaps_rollup takes milliseconds. Fails without `_next_look`, or without `_next_close_look`."""
    looks: list[None] = []

    def rollup() -> dict[str, int]:
        looks.append(None)
        return {}

    monkeypatch.setattr(unix, "smaps_rollup", rollup)
    monkeypatch.setattr(recycling, "CLOSE_LOOK_SHARE", 10**9)
    each = limits(memory=1)
    for now in (BORN, BORN + LOOK_PERIOD / 2, BORN + LOOK_PERIOD):
        assert each.reached(0, now) == ""
    assert len(looks) == 1
    each = limits(memory=1, metric="rss")
    assert each.reached(0, BORN)
    assert each.reached(0, BORN + LOOK_PERIOD / 2) == ""
    assert each.reached(0, BORN + LOOK_PERIOD)


def test_below_the_limit_the_cheap_look_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resident size bounds the others. Fails where each look reads smaps_rollup."""
    monkeypatch.setattr(unix, "smaps_rollup", lambda: pytest.fail("it was read"))
    assert limits(memory=1 << 40).reached(0, BORN) == ""
