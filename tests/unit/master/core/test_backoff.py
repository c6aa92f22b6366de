"""How long to wait, and how often to try."""

import pytest

from aserver.master.core.backoff import CRASH_WINDOW, STABLE_AFTER, BackOff


def test_failed_rounds_pause_longer_and_longer_up_to_a_cap_in_the_upper_half() -> None:
    for draw, share in ((0.0, 0.5), (0.9999999, 1.0)):
        backoff, now, pauses = BackOff(free=3, rng=lambda: draw), 0.0, []  # noqa: B023
        for _ in range(10):
            pauses.append(backoff.boot_failed(now))
            now = backoff.not_before
        assert pauses == pytest.approx([share * min(30.0, 0.5 * 2**n) for n in range(10)])


def test_failures_of_one_round_count_once() -> None:
    backoff = BackOff(free=3, rng=lambda: 0.0)
    first = backoff.boot_failed(10.0, began=9.0)
    assert backoff.boot_failed(10.1, began=9.0) == pytest.approx(first - 0.1)
    assert backoff.boot_failed(50.0, began=9.0) == 0.0
    assert backoff.failures == 1
    backoff.boot_failed(51.0, began=50.5)
    assert backoff.failures == 2
    backoff.succeeded()
    assert backoff.failures == 0


def test_a_long_life_is_no_part_of_a_crash_loop() -> None:
    backoff = BackOff(free=1, rng=lambda: 0.0)
    assert [backoff.died(float(n), lived=STABLE_AFTER) for n in range(20)] == [0.0] * 20


def test_early_deaths_are_free_up_to_a_number_and_forgotten_after_the_window() -> None:
    backoff = BackOff(free=2, rng=lambda: 0.0)
    assert [backoff.died(now, lived=1.0) for now in (0.0, 1.0, 2.0, 3.0)] == [0.0, 0.0, 0.25, 0.5]
    assert backoff.died(3.0 + CRASH_WINDOW, lived=1.0) == 0.0
