"""The time of access lines."""

import pytest

from aserver.log.access.timestamp import When, clf_time, iso_time


@pytest.mark.parametrize(("offset", "clf", "iso"), [(0, "+0000", "+00:00"), (-12600, "-0330", "-03:30")])
def test_time_zones(offset: int, clf: str, iso: str) -> None:
    when: When = (2026, 1, 2, 3, 4, 5, offset)
    assert clf_time(when) == f"[02/Jan/2026:03:04:05 {clf}]"
    assert iso_time(when) == f"2026-01-02T03:04:05{iso}"
