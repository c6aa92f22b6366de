"""A limit for frames that make work and are of no use, which attacks send in floods. Pure.

Each such frame has a cost, which is added to a sum. The sum falls with time, with each answer, and with each frame of
data. Above `LIMIT` the connection ends with ENHANCE_YOUR_CALM. The sum must fall, because otherwise the long-lived
connection of a busy proxy would reach any limit.
"""

from typing import Final

from aserver.protocol.http2.errors import ENHANCE_YOUR_CALM, ConnectionFaultError

#: The sum that a peer may reach, and by how much it falls in a second.
LIMIT: Final = 2000
FALL_PER_SECOND: Final = 200

# Costs.
RESET: Final = 10  # the peer resets a stream before its answer is complete (Rapid Reset, CVE-2023-44487)
REFUSED: Final = 10  # a fault of the peer makes us reset a stream (MadeYouReset, CVE-2025-8671), also too many streams
SETTINGS_FRAME: Final = 10  # each setting in it costs 1 more
# PING, PRIORITY, PRIORITY_UPDATE, empty DATA, a piece of a header block, a frame for a closed stream:
CONTROL: Final = 2
UPDATE: Final = 1  # WINDOW_UPDATE
TIMEOUT: Final = 25  # a body does not come, or a window does not open, in time
BOMB_BYTES: Final = 16_384  # so many bytes of fields beyond the limits cost 1 (HPACK bomb)

# Gains.
ANSWERED: Final = 10  # a whole answer
SENT: Final = 4  # a DATA frame that was sent: two or more WINDOW_UPDATE frames may follow it
SENT_BYTES: Final = 512  # each 512 bytes in it gain 1 more: some clients widen both windows for each 4 KB
RECEIVED: Final = 2  # a DATA frame that is not empty: clients may send a PING after each, to measure the round trip


class Patience:
    """The sum of a connection."""

    __slots__ = ("_spent", "_when", "gained")

    def __init__(self, now: float) -> None:
        self._spent = 0
        self._when = now
        self.gained = 0  # since the last cost; callers add to it, because a method would be too slow for each answer

    def spend(self, cost: int, now: float) -> None:
        """Add a cost. Raises ConnectionFaultError(ENHANCE_YOUR_CALM) above LIMIT."""
        self._spent = max(self._spent - self.gained, 0) + cost
        self.gained = 0
        if self._spent > LIMIT:
            elapsed = now - self._when
            self._when = now
            self._spent = max(self._spent - int(elapsed * FALL_PER_SECOND), cost)
            if self._spent > LIMIT:
                raise ConnectionFaultError(ENHANCE_YOUR_CALM, "too many frames that bring nothing")
