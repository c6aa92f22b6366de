"""A client's leaving: how the application learns of it, what becomes of its messages, and the exceptions that follow.

Runs in the worker's loop. A `Parting` is made only for a request whose client has left, or may have. It must never
decide whether an application is cancelled: the sweep does, after `disconnect_grace`.
"""

import asyncio
from typing import Final

from aserver.asgi import Message
from aserver.errors import ClientDisconnectedError
from aserver.protocol.semantics.response import BODY, HEADED, START, TRAILERS, Response

#: Seconds after a client's FIN before the application is told. A client that only stops sending (`printf ... | nc`)
#: looks the same as a client that leaves, and most answers are out by then.
HEAR_OUT: Final = 0.5

#: Seconds in which a piece of a stream is dropped instead of refused, where another task of the application has been
#: told by `receive()`. That task ends the stream in a few turns of the loop; an exception that overtakes it would end
#: the whole application instead, with its middleware and background tasks.
QUIET: Final = 0.5

#: Seconds that such a `send()` takes, so that a generator which never waits cannot keep the loop from the other task.
PACE: Final = 0.01

#: An answer of known length that begins after its client has gone is dropped in silence up to this size (bytes), also
#: where middleware has cut it in pieces; above it, a file would be read for no client.
WHOLE: Final = 1024 * 1024

#: Names of the classes by which frameworks raise to their users that the client has left: Starlette, FastAPI and
#: Litestar; uvicorn's for WebSockets; Django. Quart raises CancelledError.
_NAMES: Final = frozenset(
    {"ClientDisconnect", "ClientDisconnected", "ClientDisconnectedError", "RequestAborted", "WebSocketDisconnect"}
)

#: Causes that are followed at most; they may form a ring.
_LONGEST: Final = 20


class Parting:
    """A client's leaving, as far as its application has been told."""

    __slots__ = ("_replaced", "_told", "begun", "quiet_until", "raised")

    def __init__(self, *, begun: bool) -> None:
        self.begun = begun  # some of the answer was out when this was made
        self._told: list[asyncio.Task[object] | None] = []
        self.quiet_until = 0.0  # of the loop's clock
        self.raised = False  # by `send()`
        self._replaced = False  # another answer has been begun in place of a stream that has ended

    @property
    def told(self) -> bool:
        """Whether `receive()` has returned the disconnect."""
        return bool(self._told)

    @property
    def knows(self) -> bool:
        """Whether `receive()` or `send()` has told the application: then it may end as it likes."""
        return self.raised or bool(self._told)

    def tell(self) -> None:
        """Note that `receive()` returns the disconnect to the current task."""
        task = asyncio.current_task()
        if task not in self._told:
            self._told.append(task)

    def is_news_here(self) -> bool:
        """Tell whether the current task has not been told itself, nor any task by an exception."""
        return not self.raised and (not self._told or asyncio.current_task() not in self._told)

    async def take(
        self, message: Message, response: Response, loop: asyncio.AbstractEventLoop, *, receiving: bool
    ) -> None:
        """Take a message of a task that has not heard of it, for a client that has gone.

        Raises ClientDisconnectedError where the answer is a stream or had begun: there is something to stop. Any other
        is dropped in silence, so that the work of the application after its answer (commits, background tasks) is done
        whether or not its client waited. `receiving` says that another task waits in `receive()`.
        """
        kind = message["type"]
        if kind == "http.response.start":
            if response.state is START:
                response.start(message)
            else:  # from an endpoint that awaits its stream and then returns an empty response (the MCP SDK)
                self._replaced = True
        elif self._replaced:
            if message.get("more_body", False):
                raise self.error()
        elif kind == "http.response.body":
            response.body(message)
            whole = response.length is not None and not self.begun and response.sent <= WHOLE
            if response.state is BODY and not whole:
                if not (receiving or self.told) or loop.time() >= self.quiet_until:
                    raise self.error()
                await asyncio.sleep(PACE)
        elif kind == "http.response.trailers" and response.state is TRAILERS:
            response.trailers(message)
        elif kind == "http.response.pathsend" and response.state is HEADED:
            response.file_sent()
        elif kind != "http.response.early_hint":
            raise self.error()

    def error(self) -> ClientDisconnectedError:
        """Make the exception for `send()`."""
        self.raised = True
        return ClientDisconnectedError("the client has disconnected")


def is_disconnect(error: BaseException) -> bool:
    """Tell whether an exception comes of a client's leaving and of nothing else: of a group, each member.

    Causes are followed ("response already started" from the disconnect), contexts are not: an application that fails
    while it cleans up after a client has a fault of its own.
    """
    cause: BaseException | None = error
    for _ in range(_LONGEST):
        if isinstance(cause, BaseExceptionGroup):
            return all(map(is_disconnect, cause.exceptions))
        if cause is None or type(cause).__name__ in _NAMES:
            return cause is not None
        cause = cause.__cause__
    return False
