"""Patience with a peer: frames that make work and bring nothing are counted, and the count falls again. Pure.

Each such frame has a cost; the sum falls with time, and with each answer and each frame of data that goes well. Above
`LIMIT` the connection ends with ENHANCE_YOUR_CALM. A total that never fell would end the pooled connection of a busy
proxy sooner or later; a sum that falls does not, however long it lives.
"""

from typing import Final

from aserver.protocol.http2.errors import ENHANCE_YOUR_CALM, ConnectionFaultError

#: A peer may cost so much at once, and this much more each second.
LIMIT: Final = 2000
FALL_PER_SECOND: Final = 200

# Costs.
RESET: Final = 10  # of a stream whose answer was not complete: the application was started for nothing
REFUSED: Final = 10  # a stream that we have reset for a mistake of the peer's (MadeYouReset), or beyond the limit
SETTINGS_FRAME: Final = 10  # beside the settings in it
# PING, PRIORITY, PRIORITY_UPDATE, empty DATA, a piece of a header block, a frame for a closed stream:
CONTROL: Final = 2
UPDATE: Final = 1  # WINDOW_UPDATE
TIMEOUT: Final = 25  # of a body that does not come, or of a window that does not open: the stream was held for long
BOMB_BYTES: Final = 16_384  # of fields beyond the limits cost 1: a byte may stand for 4 KB

# Gains.
ANSWERED: Final = 10  # a whole answer
SENT: Final = 4  # a DATA frame that we have sent, which two WINDOW_UPDATE frames or more may follow
SENT_BYTES: Final = 512  # of DATA that we have sent gain another: some clients widen both windows for each 4 KB
RECEIVED: Final = 2  # a DATA frame with something in it: clients measure the round trip by a PING after each


class Patience:
    """The sum of one connection."""

    __slots__ = ("_spent", "_when", "gained")

    def __init__(self, now: float) -> None:
        self._spent = 0
        self._when = now
        self.gained = 0  # since the last cost; callers add to it, as a call is too much at each answer

    def spend(self, cost: int, now: float) -> None:
        """Count the cost of a frame. Raises ConnectionFaultError(ENHANCE_YOUR_CALM)."""
        self._spent = max(self._spent - self.gained, 0) + cost
        self.gained = 0
        if self._spent > LIMIT:
            elapsed = now - self._when
            self._when = now
            self._spent = max(self._spent - int(elapsed * FALL_PER_SECOND), cost)
            if self._spent > LIMIT:
                raise ConnectionFaultError(ENHANCE_YOUR_CALM, "too many frames that bring nothing")
