"""The limit of a worker's connections."""

import logging

import pytest

from aserver.worker.capacity import Capacity


def test_a_full_worker_says_so_once_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails without `full`: a line for every connection of a flood."""
    capacity = Capacity(2, "limit_connections")
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    capacity.fill()
    capacity.fill()
    assert len(caplog.messages) == 1
    assert not capacity.has_room(2)
    assert capacity.has_room(1)
    assert not capacity.has_room(1), "it was not full any more"
    capacity.fill()
    assert len(caplog.messages) == 2
