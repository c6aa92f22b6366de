"""The counters of all workers that there are and were, so that no sum ever goes backwards. Pure.

A worker's code can write anything to its page. So a word counts only as far as it grows, and up to a bound.
"""

import struct

import msgspec

from aserver.metrics.page import WORDS

#: Above this a word is no count of a worker: it is where floats end to be exact, and JSON with them.
LARGEST = 2**53
_PAGE = struct.Struct(f"={WORDS}Q")


class Totals(msgspec.Struct):
    """`gone` are the sums of workers that have died; `seen` the last good words of each page in use."""

    gone: list[int] = msgspec.field(default_factory=lambda: [0] * WORDS)
    seen: dict[int, list[int]] = {}

    def look(self, index: int, page: bytes) -> None:
        """Take in the page of a living worker; a page that has been cut is left out."""
        seen = self.seen.setdefault(index, [0] * WORDS)
        if len(page) >= _PAGE.size:
            words = _PAGE.unpack_from(page)
            self.seen[index] = [new if old < new <= LARGEST else old for old, new in zip(seen, words, strict=True)]

    def fold(self, index: int, page: bytes) -> None:
        """Take in the last page of a worker that has died; its number may be used again."""
        self.look(index, page)
        self.gone = [a + b for a, b in zip(self.gone, self.seen.pop(index), strict=True)]

    def sums(self) -> list[int]:
        """Each word, of all workers together."""
        return [sum(words) for words in zip(self.gone, *self.seen.values(), strict=True)]
