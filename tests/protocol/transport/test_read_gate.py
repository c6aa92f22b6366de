"""Reading goes on when the last reason to pause is gone, and not before."""

from unittest import mock

from aserver.protocol.transport.read_gate import Pause, ReadGate


def test_reading_goes_on_when_the_last_reason_is_gone() -> None:
    transport = mock.Mock()
    gate = ReadGate(transport)
    gate.resume(Pause.TURN)
    gate.open()
    assert not transport.mock_calls
    gate.pause(Pause.BODY)
    gate.pause(Pause.TURN)
    gate.pause(Pause.TURN)
    transport.pause_reading.assert_called_once_with()
    gate.resume(Pause.BODY)
    assert gate.reasons == {Pause.TURN}
    assert not transport.resume_reading.called
    gate.resume(Pause.TURN)
    transport.resume_reading.assert_called_once_with()
    assert not gate.reasons


def test_an_opened_gate_has_no_reasons() -> None:
    transport = mock.Mock()
    gate, other = ReadGate(transport), ReadGate(mock.Mock())
    gate.pause(Pause.OFFER)
    gate.pause(Pause.PIPELINE)
    assert not other.reasons
    gate.open()
    transport.resume_reading.assert_called_once_with()
    gate.resume(Pause.OFFER)
    transport.resume_reading.assert_called_once_with()
