"""A listener from `listen` to `close`."""

import select
import socket
import sys

import pytest

from aserver.errors import BindError
from aserver.sockets import Listener
from tests.unit.sockets.stage import Bind, connect, needs_linux


def test_nobody_can_connect_before_listen_and_everybody_after(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    with pytest.raises(ConnectionRefusedError):
        connect(listener)
    listener.listen(5)
    connect(listener).close()


@needs_linux
def test_the_backlog_is_what_listen_was_told(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    listener.listen(100)
    listener.listen(37)
    # For a listening socket tcpi_sacked is sk_max_ack_backlog, which `ss` prints as Send-Q (net/ipv4/tcp.c).
    info = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    if int.from_bytes(info[28:32], sys.byteorder) == 0:
        pytest.skip("this kernel does not tell a listener's backlog")
    assert int.from_bytes(info[28:32], sys.byteorder) == 37


@needs_linux
def test_two_that_bound_before_either_listened_are_sorted_out_at_listen(bind: Bind) -> None:
    (first,) = bind("127.0.0.1:0")
    (second,) = bind(first.name.removeprefix("http://"))
    first.listen(5)
    with pytest.raises(BindError, match=rf"cannot listen on {second.name}: .*in use by this process itself"):
        second.listen(5)


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_begins_no_more_connections_and_keeps_those_there_are(host: str) -> None:
    """Fails without the filter in `open_no_more`: the second client is in the queue, and would be reset by a close."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock, socket.socket(family) as first, socket.socket(family) as second:
        sock.bind((host, 0))
        listener = Listener(sock, "http://test", sock.getsockname()[:2])
        listener.listen(5)
        first.connect(sock.getsockname())
        listener.open_no_more()
        second.setblocking(False)
        second.connect_ex(sock.getsockname())
        served, _ = sock.accept()
        with served:
            first.sendall(b"ping")
            served.setblocking(True)
            assert served.recv(4) == b"ping"
        assert select.select([sock], [], [], 0.2)[0] == [], "a connection has begun"


def test_an_adopted_listener_goes_on_after_this_server() -> None:
    """Fails without the look at the name in `open_no_more`: systemd's socket would be dead for the next service."""
    with socket.socket() as sock, socket.socket() as client:
        sock.bind(("127.0.0.1", 0))
        listener = Listener(sock, "fd://3 (tcp)", sock.getsockname())
        listener.listen(5)
        listener.open_no_more()
        client.connect(sock.getsockname())
        sock.accept()[0].close()
