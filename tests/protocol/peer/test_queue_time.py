"""X-Request-Start in the spellings of nginx, Heroku and Apache."""

import pytest

from aserver.protocol.peer.queue_time import LONGEST, queue_time

NOW = 1512379168.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"t=1512379167.574", 0.426),
        (b"1512379167.574", 0.426),
        (b"t=1512379167", 1.0),
        (b"1512379167574", 0.426),
        (b"t=1512379167574482", 0.425518),
        (b"t=1512379168.9", 0.0),  # the proxy's clock is ahead
    ],
)
def test_seconds_milliseconds_and_microseconds(value: bytes, seconds: float) -> None:
    """Fails with another limit between two units."""
    assert queue_time(value, NOW) == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize(
    "value",
    [b"", b"t=", b"now", b"-1512379167", b"1e9", b"t=1512379167, t=1512379167", b"9" * 30, b"%d" % (NOW - LONGEST - 1)],
)
def test_nonsense_and_what_no_client_waits_for_is_nothing(value: bytes) -> None:
    assert queue_time(value, NOW) is None
