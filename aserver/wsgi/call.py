"""A WSGI request between its two sides: the application in a thread, the client in the worker's loop.

The thread posts ASGI messages into the mailbox of all calls; the loop sends them, and hands pieces of the body back. It
must never let a thread run far ahead of its client, nor wait for a client that has gone.
"""

import asyncio
import sys
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from enum import Enum
from queue import SimpleQueue
from threading import get_ident
from typing import IO, Any

from aserver.asgi import Message, Scope
from aserver.wsgi.response import WSGIResponse
from aserver.wsgi.streams import FileWrapper

#: Bytes of an answer that may be on their way to the client before the thread waits.
WINDOW = 65536


class Notice(Enum):
    """The things that a thread posts beside messages for the client."""

    BODY = "it waits for a piece of the request's body"
    OVER = "the application has returned, and its response is closed"


Posted = Message | Notice


class Call:
    """A request under way. Fields without an underscore are the loop's, unless their comment says otherwise."""

    __slots__ = (
        "_app",
        "_body",
        "_body_over",
        "_context",
        "_environ",
        "_last",
        "_post",
        "_posted",
        "_signals",
        "_waits_for_room",
        "error",
        "gone",
        "held_since",
        "inbox",
        "lent",
        "loop",
        "over",
        "scope",
        "taken",
        "thread",
        "waiter",
    )

    def __init__(
        self,
        app: Callable[..., Any],
        scope: Scope,
        loop: asyncio.AbstractEventLoop,
        post: "Callable[[Call], None]",
    ) -> None:
        self._app = app
        self._environ: dict[str, Any] | None = None
        self._body: IO[bytes] | None = None
        self._body_over = False  # its last piece has been handed to the thread
        self._context = copy_context()
        self._last = False  # no message but OVER can follow, so they are posted together
        self._post = post
        self._posted = 0  # bytes; the thread's
        self._signals: SimpleQueue[bytes | None] | None = None  # the thread waits for them, and makes their queue
        self._waits_for_room = False  # the thread's
        self.inbox: deque[Posted] = deque()  # the thread puts into it, then tells the loop
        self.scope = scope
        self.loop = loop
        self.waiter: asyncio.Future[None] | None = None
        self.taken = 0  # bytes that the client's connection has taken
        self.gone = False  # nothing that is sent reaches the client any more
        self.thread = 0  # set by the thread: its identity, while it runs the application
        self.error: BaseException | None = None  # set by the thread, before OVER
        self.over = False  # set by the thread, after OVER
        self.held_since: float | None = None  # since when the answer goes on, or the thread waits for the body
        self.lent = False  # the thread does not count any more: another takes its place

    # ── in the thread ────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Call the application, send its answer, close its response."""
        self.thread = get_ident()
        try:
            if not self.gone:  # while it waited for a thread
                self._context.run(self._answer)
        except BaseException as error:  # noqa: BLE001 - the application's; the loop raises it in the request's task
            self.error = error
        self.thread = 0
        self._environ = None
        if self._body is not None:
            self._body.close()
            self._body = None
        self.inbox.append(Notice.OVER)
        self.over = True
        self._post(self)

    def _answer(self) -> None:
        answer = WSGIResponse(self._emit, head_only=self.scope["method"] == "HEAD")
        pieces = self._app(self._environ, answer.start_response)
        kind = type(pieces)
        if (kind is list or kind is tuple) and len(pieces) == 1:  # it has no `close`, and nothing can come after it
            self._last = True
            answer.send(pieces[0], last=True)
            answer.end()
            return
        if kind is FileWrapper:
            pieces.left = answer.left
        try:
            for piece in pieces:
                answer.write(piece)
                if self.gone or answer.silent:
                    return
            answer.end()
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _emit(self, head: Message | None, message: Message, size: int) -> None:
        """Post messages for the client; wait while more than WINDOW bytes are on their way.

        Raises ConnectionResetError if the client has gone, for applications that go on by `write()`.
        """
        if self.gone:
            raise ConnectionResetError("the client has gone")
        inbox = self.inbox
        if head is not None:
            inbox.append(head)
        inbox.append(message)
        self._posted += size
        if self._last:
            return
        self._post(self)
        if message["more_body"] and self._posted - self.taken > WINDOW:
            signals = self._hear()
            # In this order: the loop counts `taken` up before it looks at this flag, so no signal can be missed.
            self._waits_for_room = True
            while self._posted - self.taken > WINDOW and not self.gone:
                signals.get()
            self._waits_for_room = False

    def _hear(self) -> SimpleQueue[bytes | None]:
        """Return the queue of signals, made at the first call.

        Call this before a look at `gone`. The loop sets `gone` before it looks for the queue, so no signal can be
        missed.
        """
        if self._signals is None:
            self._signals = SimpleQueue()
        return self._signals

    def read(self) -> bytes | None:
        """Wait for the next piece of the request's body; None at its end.

        Raises ConnectionResetError if the client has left.
        """
        if self._body_over:
            return None
        signals = self._hear()
        self.inbox.append(Notice.BODY)
        self._post(self)
        while not self.gone:
            piece = signals.get()
            if piece is not None:
                return piece
        raise ConnectionResetError("the client disconnected before the request body was complete")

    # ── in the loop ──────────────────────────────────────────────────────────────────────────

    def prepare(self, environ: dict[str, Any], body: IO[bytes]) -> None:
        """Take the environ, and the body that is to be closed at the end, before the call is given to a thread."""
        self._environ, self._body = environ, body

    def deliver(self) -> None:
        """Hear that the thread has put something into the inbox; wake the request's task."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def give(self, piece: bytes, *, more: bool) -> None:
        """Hand on a piece of the request's body, for which the thread waits."""
        self.held_since = None
        self._body_over = not more
        self._signal(piece)

    def sent(self, size: int) -> None:
        """Note that the client's connection has taken `size` bytes."""
        self.taken += size
        if self._waits_for_room:
            self._signal(None)

    def leave(self) -> None:
        """Let the thread end the answer at its next piece: the client has gone, or its request was given up."""
        self.gone = True
        self._signal(None)

    def _signal(self, piece: bytes | None) -> None:
        if self._signals is not None:
            self._signals.put(piece)

    def stack(self) -> str | None:
        """Return where the thread stands, in lines of a traceback; None if no thread runs this call."""
        frame = sys._current_frames().get(self.thread)  # there is no public name for it
        return None if frame is None else "".join(traceback.format_stack(frame))
