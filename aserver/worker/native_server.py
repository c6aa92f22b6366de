"""A server whose connections have transports of our own (`protocol/transport/native.pyx`): compiled builds on Linux.

Runs in the worker's loop or the embedding program's, which must be uvloop's: asyncio's own keeps its own transports, as
does the PROXY protocol, which reads into a buffer of its own. It must never be used across a fork, nor shut down the
listener, which other workers accept on: it is given a duplicate.
"""

import asyncio
import socket
from collections.abc import Callable

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


class NativeServer:
    """Accept several clients each time the listener is readable, and make connections of them.

    Used in place of an `asyncio.Server` that was made with `start_serving=False`. Like the loops' servers it closes the
    socket that it is given. `trouble` is told of an error of accept(2) that will last. `hold` has the present turn
    accept no more: the protocol's factory calls it where this client is to be the last.
    """

    def __init__(
        self,
        poll: "SocketPoll",
        listener: socket.socket,
        backlog: int,
        factory: Callable[[], asyncio.BaseProtocol],
        trouble: Callable[[OSError], None],
    ) -> None:
        self._poll = poll
        self._listener = listener
        self._backlog = backlog
        self._factory = factory
        self._trouble = trouble
        self.held = False

    async def start_serving(self) -> None:
        """Accept from now on. Calls listen(2), because the master has only bound the socket for the first worker."""
        self._listener.setblocking(False)
        self._listener.listen(self._backlog)
        self._poll.loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more. May be called before `start_serving`, and again."""
        if self._listener.fileno() >= 0:
            self._poll.loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def hold(self) -> None:
        """Accept no more clients in this turn of the loop."""
        self.held = True

    def _accept(self) -> None:
        self.held = False
        try:
            self._poll.accept(self, self._listener.fileno(), self._factory)
        except OSError as error:  # the listener stays readable: without a pause the loop would do nothing else
            self._trouble(error)
