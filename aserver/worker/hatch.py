"""Accepting by hand, for what a loop's own server cannot do: give away the bare socket before a handshake begins.

Runs in the worker's loop or the embedding program's. Like the loops' servers it closes the socket that it is given, and
takes one client each time the listener is readable, which leaves the next to another worker. It must never close or
shut down a listener that others accept on: it is given a duplicate.
"""

import asyncio
import socket
from collections.abc import Callable


class Hatch:
    """Give each client's socket, not blocking, to `accepted`; an error of accept(2) that will last, to `trouble`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        backlog: int,
        accepted: Callable[[socket.socket], object],
        trouble: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._backlog = backlog
        self._accepted = accepted
        self._trouble = trouble

    async def start_serving(self) -> None:
        """Begin. The listener may be only bound: the first worker comes before the master listens."""
        self._listener.setblocking(False)
        self._listener.listen(self._backlog)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """End; may be called before the beginning and again."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker has it, or it has left
            return
        except OSError as error:  # the listener stays readable: without a pause the loop would turn for nothing else
            self._trouble(error)
            return
        sock.setblocking(False)
        self._accepted(sock)
