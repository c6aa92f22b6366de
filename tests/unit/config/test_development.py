"""The settings under `reload`. Each docstring says how it was seen to fail."""

import pytest

from aserver.config import Layer, Resolved, build
from aserver.config.development import FIXED, PREFERRED, develop


def resolved(**values: object) -> Resolved:
    return build([Layer("test", values)])


def test_without_reload_they_are_as_they_were_set() -> None:
    """Fails without the look at `reload`."""
    given = resolved(workers=3)
    assert develop(given) is given


def test_with_reload_some_are_fixed_and_some_preferred() -> None:
    """Fails with `preload`, which keeps the first version for ever; and where a value that was set gives way."""
    made = develop(resolved(reload=True, graceful_timeout=9))
    assert {name: getattr(made.config, name) for name in FIXED} == FIXED
    assert made.config.graceful_timeout == 9.0
    assert made.config.stream_grace == PREFERRED["stream_grace"]
    assert (made.origins["preload"], made.origins["graceful_timeout"]) == ("reload", "test")
    assert made.notes == ()


@pytest.mark.parametrize(("workers", "notes"), [(4, ("reload serves with one worker, not with 4",)), (1, ())])
def test_workers_that_were_asked_for_in_vain_are_told(workers: int, notes: tuple[str, ...]) -> None:
    """Fails without the note."""
    assert develop(resolved(reload=True, workers=workers)).notes == notes
