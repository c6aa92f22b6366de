"""The order in which the bodies of streams are sent (RFC 9218). Pure.

A client gives a stream an urgency from 0 (first) to 7, and says whether it can use a part of the body (incremental).
The tree of priorities of RFC 7540, which RFC 9113 has dropped, is ignored.
"""

import re
from typing import Final

from aserver.protocol.http2.streams import Stream

URGENCIES: Final = 8

_MEMBER: Final = re.compile(rb"[ \t]*(?:u=([0-7])|i(?:=\?([01]))?)(?:[ \t]*|;[^,]*)")


def parse_priority(value: bytes, urgency: int, *, incremental: bool) -> tuple[int, bool]:
    """Return urgency and incremental by a `priority` field. Values that it does not give stay as they were."""
    for member in value[:256].split(b","):
        match = _MEMBER.fullmatch(member)
        if match is None:
            continue
        if match[1] is not None:
            urgency = int(match[1])
        else:
            incremental = match[2] != b"0"
    return urgency, incremental


class WriteOrder:
    """The streams that have bytes to send and room in their windows, in the order of sending.

    A lower number of urgency comes first. Among streams of the same urgency, an incremental stream goes behind the
    others after each frame. Any other stream is sent to its end.
    """

    __slots__ = ("_waiting", "waiting")

    def __init__(self) -> None:
        self._waiting: list[dict[int, Stream] | None] = [None] * URGENCIES
        self.waiting = 0  # streams

    def add(self, stream: Stream) -> None:
        """Put a stream behind the others of its urgency, unless it is there already."""
        waiting = self._waiting[stream.urgency]
        if waiting is None:
            waiting = self._waiting[stream.urgency] = {}
        if stream.id not in waiting:
            waiting[stream.id] = stream
            self.waiting += 1

    def remove(self, stream: Stream) -> None:
        """Take a stream out, if it is there."""
        waiting = self._waiting[stream.urgency]
        if waiting is not None and waiting.pop(stream.id, None) is not None:
            self.waiting -= 1

    def next(self) -> Stream | None:
        """Return the stream whose frame is next; None if no stream waits."""
        for waiting in self._waiting:
            if waiting:
                return next(iter(waiting.values()))
        return None

    def sent(self, stream: Stream) -> None:
        """Reorder after a frame of a stream that has more to send."""
        if stream.incremental:
            self.remove(stream)
            self.add(stream)

    def change(self, stream: Stream, urgency: int, *, incremental: bool) -> None:
        """Give a stream another priority."""
        before = self.waiting
        self.remove(stream)
        stream.urgency = urgency
        stream.incremental = incremental
        if self.waiting < before:
            self.add(stream)
