"""The master's numbers: cut out of the settings, drawn for each worker, and the pauses after failures."""

import pytest

from aserver.config import Config
from aserver.master.core.limits import CRASH_WINDOW, KILL_ALLOWANCE, STABLE_AFTER, BackOff, Limits


def none() -> float:
    """Chance that draws the least."""
    return 0.0


def test_limits_are_cut_out_of_the_settings() -> None:
    limits = Limits.of(Config(graceful_timeout=7.0, max_surge=2), workers=5)
    assert (limits.workers, limits.graceful_timeout, limits.max_surge) == (5, 7.0, 2)
    assert limits.leave_allowance == limits.lifespan_shutdown_timeout + KILL_ALLOWANCE


@pytest.mark.parametrize(("draw", "requests", "seconds"), [(0.0, 100, 60.0), (0.5, 105, 65.0), (0.9999, 110, 69.999)])
def test_jitter_only_adds(draw: float, requests: int, seconds: float) -> None:
    config = Config(max_requests=100, max_requests_jitter=10, max_lifetime=60.0, max_lifetime_jitter=10.0)
    limits = Limits.of(config, 1)
    assert limits.draw_lifetime(lambda: draw) == pytest.approx((requests, seconds))


def test_no_limit_has_no_jitter() -> None:
    assert Limits.of(Config(max_requests_jitter=10, max_lifetime_jitter=10.0), 1).draw_lifetime(lambda: 0.9) == (0, 0.0)


def test_failed_rounds_pause_longer_and_longer_up_to_a_cap_in_the_upper_half() -> None:
    for draw, share in ((0.0, 0.5), (0.9999999, 1.0)):
        backoff, now, pauses = BackOff(free=3), 0.0, []
        for _ in range(10):
            pauses.append(backoff.boot_failed(now, lambda: draw))  # noqa: B023
            now = backoff.not_before
        assert pauses == pytest.approx([share * min(30.0, 0.5 * 2**n) for n in range(10)])


def test_failures_of_one_round_count_once() -> None:
    backoff = BackOff(free=3)
    first = backoff.boot_failed(10.0, none, began=9.0)
    assert backoff.boot_failed(10.1, none, began=9.0) == pytest.approx(first - 0.1)
    assert backoff.boot_failed(50.0, none, began=9.0) == 0.0
    assert backoff.failures == 1
    backoff.boot_failed(51.0, none, began=50.5)
    assert backoff.failures == 2
    backoff.succeeded()
    assert backoff.failures == 0


def test_a_long_life_is_no_part_of_a_crash_loop() -> None:
    backoff = BackOff(free=1)
    assert [backoff.died(float(n), none, lived=STABLE_AFTER) for n in range(20)] == [0.0] * 20


def test_early_deaths_are_free_up_to_a_number_and_forgotten_after_the_window() -> None:
    backoff = BackOff(free=2)
    assert [backoff.died(now, none, lived=1.0) for now in (0.0, 1.0, 2.0, 3.0)] == [0.0, 0.0, 0.25, 0.5]
    assert backoff.died(3.0 + CRASH_WINDOW, none, lived=1.0) == 0.0
