"""The queue of a listener, as the kernel tells it."""

import os
import socket
from contextlib import ExitStack

import pytest

from tests.unit.sockets.stage import Bind, needs_linux


@needs_linux
@pytest.mark.parametrize("spec", ["127.0.0.1:0", "unix:{}", "unix:@aserver-test-queue-{}"])
def test_the_queue_of_a_listener(bind: Bind, tmp_path_factory: pytest.TempPathFactory, spec: str) -> None:
    """Clients that no process has accepted yet. Fails without `unix_queue`: TCP_INFO is of TCP alone."""
    place = os.getpid() if "@" in spec else tmp_path_factory.mktemp("q") / "a"
    (listener,) = bind(spec.format(place))
    listener.listen(7)
    if spec.startswith("unix") and listener.queue() is None:
        pytest.skip("this kernel has no unix_diag")
    assert listener.queue() == (0, 7)
    with ExitStack() as undo:
        for _ in range(3):
            client = undo.enter_context(socket.socket(listener.socket.family))
            client.connect(listener.socket.getsockname())
        assert listener.queue() == (3, 7)
    listener.close()
    assert listener.queue() is None
