"""A departure without a clock."""

from unittest import mock

from aserver.protocol.websocket.departure import Departure


def test_a_departure_that_is_called_off_tells_nobody_any_more() -> None:
    loop, leavers = mock.Mock(), [mock.Mock() for _ in range(4)]
    loop.time.return_value = 0.0
    departure = Departure(loop, leavers, 1000.0)
    assert not any(leaver.leave.called for leaver in leavers)
    departure.cancel()
    loop.call_later.return_value.cancel.assert_called_once_with()
