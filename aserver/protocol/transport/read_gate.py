"""The reasons for which a connection does not read from its client just now. Runs in the worker's loop.

Several parts of a connection may have a reason at the same time. The connection reads again when the last reason is
withdrawn, so that no part has to know the others.
"""

import asyncio
from enum import Enum
from typing import Final


class Pause(Enum):
    """A reason for reading nothing."""

    BODY = "the application does not take the request's body as fast as it comes"
    PIPELINE = "as many requests have been read as may wait for their turn"
    OFFER = "a request that may become a WebSocket waits for the answers before it"
    TURN = "what was read at once is more than one turn of the loop allows"
    MESSAGES = "the application does not take the WebSocket's messages as fast as they come"


_NONE: Final[frozenset[Pause]] = frozenset()


class ReadGate:
    """Pauses and resumes the reading of a transport, by a set of reasons."""

    __slots__ = ("_transport", "reasons")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.reasons = _NONE  # frozen: all connections share the empty set

    def pause(self, reason: Pause) -> None:
        """Read nothing until `resume` is called with the same reason."""
        if not self.reasons:
            self._transport.pause_reading()
        self.reasons |= {reason}

    def resume(self, reason: Pause) -> None:
        """Withdraw a reason, if it was given. Read again if no other is left."""
        if reason in self.reasons:
            self.reasons -= {reason}
            if not self.reasons:
                self._transport.resume_reading()

    def open(self) -> None:
        """Withdraw all reasons, and read again."""
        if self.reasons:
            self.reasons = _NONE
            self._transport.resume_reading()
