"""The master's numbers: cut out of the settings, and drawn for each worker."""

import pytest

from aserver.config import Config
from aserver.master.core.limits import KILL_ALLOWANCE, Limits


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
