"""A server that passes on each client's bare socket before a TLS handshake begins, which the loops' servers cannot.

Runs in the worker's loop or the embedding program's. Like the loops' servers it closes the socket that it is given, and
accepts a single client each time the listener is readable, which leaves the next client to another worker. It must
never shut down the listener, which other workers accept on: it is given a duplicate.
"""

import asyncio
import socket
from collections.abc import Callable


class ListeningServer:
    """Call `_accept`, which a subclass has, each time the listener is readable.

    `trouble` is told of an error of accept(2) that will last.

    Used in place of an `asyncio.Server` that was made with `start_serving=False`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        backlog: int,
        trouble: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._backlog = backlog
        self._trouble = trouble

    async def start_serving(self) -> None:
        """Accept from now on. Calls listen(2), because the master has only bound the socket for the first worker."""
        self._listener.setblocking(False)
        self._listener.listen(self._backlog)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more. May be called before `start_serving`, and again."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def _accept(self) -> None:
        raise NotImplementedError


class RawServer(ListeningServer):
    """Pass each client's socket, not blocking, to `accepted`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        backlog: int,
        accepted: Callable[[socket.socket], object],
        trouble: Callable[[OSError], None],
    ) -> None:
        super().__init__(loop, listener, backlog, trouble)
        self._accepted = accepted

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker has it, or it is gone
            return
        except OSError as error:  # the listener stays readable: without a pause the loop would do nothing else
            self._trouble(error)
            return
        sock.setblocking(False)
        self._accepted(sock)
