"""A client that leaves before its answer is complete: the application is told, and its messages are dropped or refused.

Runs in the worker's loop. A `Parting` is made only when the client has left, or may have left. It must never cancel the
application: `Tasks.sweep` does that, after `disconnect_grace`.
"""

import asyncio
from typing import Final

from aserver.asgi import Message
from aserver.errors import ClientDisconnectedError
from aserver.protocol.semantics.response import BODY, HEADED, START, TRAILERS, Response

#: Seconds from a client's FIN until the application is told. A client that only stops sending (`printf ... | nc`) looks
#: the same as a client that leaves, and most answers are complete after this time.
HEAR_OUT: Final = 0.5

#: Seconds in which pieces of a stream are dropped instead of refused, if `receive()` tells another task of the
#: application. That task ends the stream within a few turns of the loop. An exception from `send()` before that would
#: end the whole application, with its middleware and background tasks.
QUIET: Final = 0.5

#: Seconds that a `send()` whose piece is dropped so takes: a generator that never waits must let the other task run.
PACE: Final = 0.01

#: An answer of known length that begins after its client has gone is dropped up to this many bytes, also in several
#: pieces. A longer answer is refused, because it may be a file that would be read for no client.
WHOLE: Final = 1024 * 1024

#: Names of the exceptions with which frameworks tell their users that the client has left: Starlette's, FastAPI's,
#: Litestar's, uvicorn's for WebSockets, Django's. Quart raises CancelledError.
_NAMES: Final = frozenset(
    {"ClientDisconnect", "ClientDisconnected", "ClientDisconnectedError", "RequestAborted", "WebSocketDisconnect"}
)

#: The most causes that are followed, because they may form a ring.
_LONGEST: Final = 20


class Parting:
    """The departure of a client, and which tasks of the application have been told of it."""

    __slots__ = ("_replaced", "_told", "begun", "quiet_until", "raised")

    def __init__(self, *, begun: bool) -> None:
        self.begun = begun  # a part of the answer was sent before the client left
        self._told: list[asyncio.Task[object] | None] = []  # tasks to which `receive()` has returned the disconnect
        self.quiet_until = 0.0  # by the loop's clock; see QUIET
        self.raised = False  # `send()` has raised `error()`
        self._replaced = False  # the application has begun a second answer in place of its ended stream

    @property
    def told(self) -> bool:
        """Whether `receive()` has returned the disconnect."""
        return bool(self._told)

    @property
    def knows(self) -> bool:
        """Whether `receive()` or `send()` has told the application. If so, it is not cancelled."""
        return self.raised or bool(self._told)

    def tell(self) -> None:
        """Note that `receive()` returns the disconnect to the current task."""
        task = asyncio.current_task()
        if task not in self._told:
            self._told.append(task)

    def is_news_here(self) -> bool:
        """Tell whether the current task has not been told, and no task has got the exception."""
        return not self.raised and (not self._told or asyncio.current_task() not in self._told)

    async def take(
        self, message: Message, response: Response, loop: asyncio.AbstractEventLoop, *, receiving: bool
    ) -> None:
        """Drop a message for a client that has gone, from a task that has not been told.

        Raises ClientDisconnectedError if the answer is a stream or had begun, so that the application stops it. Any
        other answer is dropped in silence: the work after it (commits, background tasks) is done whether or not the
        client waited. `receiving` says that another task waits in `receive()`.
        """
        kind = message["type"]
        if kind == "http.response.start":
            if response.state is START:
                response.start(message)
            else:  # the MCP SDK's endpoint awaits its stream, and then returns an empty response
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
        """Return the exception for `send()` to raise, and note that it is raised."""
        self.raised = True
        return ClientDisconnectedError("the client has disconnected")


def is_disconnect(error: BaseException) -> bool:
    """Tell whether the client's leaving is the only reason of an exception; of a group, the reason of each member.

    Causes are followed (`raise ... from`), contexts are not: an application that fails while it cleans up has a fault
    of its own.
    """
    cause: BaseException | None = error
    for _ in range(_LONGEST):
        if isinstance(cause, BaseExceptionGroup):
            return all(map(is_disconnect, cause.exceptions))
        if cause is None or type(cause).__name__ in _NAMES:
            return cause is not None
        cause = cause.__cause__
    return False
