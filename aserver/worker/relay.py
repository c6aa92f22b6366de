"""Idle connections on their way from a worker that gives way to its successor (`reload`).

Runs in workers; the zygote makes the pair of sockets that all of them share. A client's next request on a kept
connection is so answered by the new code, and none is lost to a connection that is closed as it arrives. TLS
connections, and those behind the PROXY protocol, cannot be handed on.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterable

from aserver.protocol.transport.connection import Connection
from aserver.worker.native_server import SocketPoll


class Relay:
    """A queue of descriptors in the kernel: `hand_on` puts in, `take` takes out."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._in.setblocking(False)
        self._out.setblocking(False)

    def hand_on(self, connections: Iterable[Connection]) -> None:
        """Put idle connections in. If the queue is full, or the system lacks descriptors, the rest stay here."""
        with contextlib.suppress(OSError):
            for connection in list(connections):
                if connection.tls or not connection.idle or not connection.handler.portable:
                    continue
                connection.writer.flush()
                if not connection.transport.get_write_buffer_size():
                    fd = connection.transport.get_extra_info("socket").fileno()
                    socket.send_fds(self._in, [b"c"], [fd])
                    connection.abort()

    def take(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        poll: "SocketPoll | None" = None,
    ) -> None:
        """Take the connections that come from now on, for `poll` if it is there, else for the loop."""
        loop.add_reader(self._out.fileno(), self._take_one, loop, factory, poll)

    def take_no_more(self, loop: asyncio.AbstractEventLoop) -> None:
        """Undo `take`: the rest is for the successor."""
        loop.remove_reader(self._out.fileno())

    def _take_one(
        self, loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol], poll: "SocketPoll | None"
    ) -> None:
        with contextlib.suppress(OSError):  # another worker was quicker
            _, fds, _, _ = socket.recv_fds(self._out, 1, 1)
            for fd in fds:
                os.set_inheritable(fd, False)
                sock = socket.socket(fileno=fd)
                sock.setblocking(False)
                if poll is not None:
                    poll.adopt(sock, factory)
                else:
                    loop.create_task(loop.connect_accepted_socket(factory, sock))
