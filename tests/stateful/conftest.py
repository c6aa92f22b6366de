"""Hypothesis profiles: short for every run, `HYPOTHESIS_PROFILE=long` for the night."""

import os

from hypothesis import HealthCheck, settings

_UNTIMED = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "short",
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=_UNTIMED,
)
settings.register_profile(
    "long", max_examples=3000, stateful_step_count=80, deadline=None, suppress_health_check=_UNTIMED
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))
