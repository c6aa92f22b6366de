"""Listeners across a re-exec."""

import os
from pathlib import Path

import pytest

from aserver.sockets import hand_over, take_over
from tests.unit.sockets.stage import Bind


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_what_is_handed_over_is_the_same_listener(bind: Bind, tmp_path: Path, kind: str) -> None:
    """And no child inherits it. Fails without set_inheritable, and without any field of Handover."""
    spec = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/a.sock"
    (listener,) = bind(spec, tls=kind == "tcp")
    listener.listen(5)
    handover = hand_over(listener)
    os.set_inheritable(handover.fd, True)  # as the upgrade does before it execs
    successor = take_over(handover)
    listener.socket.detach()  # the image that held it is gone
    try:
        assert not os.get_inheritable(handover.fd)
        before, after = ((each.name, each.address, each.family, each.tls) for each in (listener, successor))
        assert before == after
        if kind == "unix":
            (tmp_path / "a.sock").unlink()
            assert "it is back" in str(successor.tend())
    finally:
        successor.close()
    assert list(tmp_path.iterdir()) == []
