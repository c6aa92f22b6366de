"""A server whose connections have transports of our own (`protocol/transport/native.pyx`): compiled builds on Linux.

Runs in the worker's loop or the embedding program's, which must be uvloop's: asyncio's own keeps its own transports, as
do TLS and the PROXY protocol, whose connections begin with other protocols. It must never be used across a fork.
"""

import asyncio
import socket
from collections.abc import Callable

from aserver.worker.raw_server import ListeningServer

try:
    from aserver.protocol.transport.native import SocketPoll
except ImportError:  # not compiled, or not on Linux
    SocketPoll = None  # type: ignore[assignment,misc]

__all__ = ["NativeServer", "SocketPoll", "poll_of"]


def poll_of(loop: asyncio.AbstractEventLoop) -> "SocketPoll | None":
    """Make what watches the sockets of a loop; None where that is the loop's own task. To be closed."""
    if SocketPoll is None or not any(base.__module__.split(".")[0] == "uvloop" for base in type(loop).__mro__):
        return None
    return SocketPoll(loop)


class NativeServer(ListeningServer):
    """Accept several clients each time the listener is readable, and make connections of them.

    `hold` has the present turn accept no more: the protocol's factory calls it where this client is to be the last.
    """

    def __init__(
        self,
        poll: "SocketPoll",
        listener: socket.socket,
        backlog: int,
        factory: Callable[[], asyncio.BaseProtocol],
        trouble: Callable[[OSError], None],
    ) -> None:
        super().__init__(poll.loop, listener, backlog, trouble)
        self._poll = poll
        self._factory = factory
        self.held = False

    def hold(self) -> None:
        """Accept no more clients in this turn of the loop."""
        self.held = True

    def _accept(self) -> None:
        self.held = False
        try:
            self._poll.accept(self, self._listener.fileno(), self._factory)
        except OSError as error:
            self._trouble(error)
