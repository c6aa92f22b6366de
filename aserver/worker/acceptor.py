"""Accepting on one listener that others accept on too: begin, pause, stop, and take what is left.

Runs in the worker's loop or the embedding program's. It accepts on a duplicate of the listening socket, because a loop
closes what it is given, and because closing a duplicate stops accepting here without touching anybody else's
listener. It must never close or shut down the listener itself.
"""

import asyncio
import contextlib
import enum
import inspect
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A listening socket, and what connections to it are to be told."""

    sock: socket.socket
    name: str
    tls: bool = False


class State(enum.Enum):
    """Of an acceptor."""

    CLOSED = "closed"
    OPEN = "open"
    PAUSED = "paused"


@dataclass(slots=True)
class Acceptor:
    """One endpoint being accepted on by this loop."""

    endpoint: Endpoint
    factory: Callable[[], asyncio.Protocol]
    backlog: int
    loop: asyncio.AbstractEventLoop
    state: State = State.CLOSED
    _server: asyncio.AbstractServer | None = None
    _resumption: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to accept. The backlog is passed because a loop calls listen(2) again, with 100 (PROCESS 3.1)."""
        self.state = State.OPEN
        duplicate = self.endpoint.sock.dup()
        if duplicate.family == socket.AF_UNIX:
            # Only create_unix_server takes a unix socket on both loops. From Python 3.13 on it would remove
            # the path at close, which is the master's alone to do (trap 52).
            server = await self.loop.create_unix_server(
                self.factory, sock=duplicate, backlog=self.backlog, **_keep_path(self.loop)
            )
        else:
            server = await self.loop.create_server(self.factory, sock=duplicate, backlog=self.backlog)
        if self.state is State.OPEN:
            self._server = server
        else:  # closed or paused while it was being made
            server.close()

    def close(self) -> None:
        """Stop accepting; connections and the listener itself stay."""
        self.state = State.CLOSED
        self._stop()

    def pause(self, seconds: float) -> None:
        """Let others accept for a moment."""
        if self.state is State.OPEN and self._server is not None:
            self.state = State.PAUSED
            self._stop()
            self.loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        if self.state is State.PAUSED:
            self._resumption = self.loop.create_task(self.open())

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept_rest(self, until: float) -> int:
        """Take what the kernel has completed already, so that closing the listener resets nobody (PROCESS 3.3).

        Ends when the queue is empty or at `until` (seconds of the loop's clock); returns how many were taken.
        """
        taken = 0
        while self.loop.time() < until:
            try:
                connection, _ = self.endpoint.sock.accept()
            except OSError:  # EAGAIN: the queue is empty; ECONNABORTED and the like: that one is gone anyway
                break
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                await self.loop.connect_accepted_socket(self.factory, connection)
                taken += 1
        return taken


def _keep_path(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    parameters = inspect.signature(loop.create_unix_server).parameters
    return {"cleanup_socket": False} if "cleanup_socket" in parameters else {}
