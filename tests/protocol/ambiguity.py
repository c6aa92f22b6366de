"""Whether a regular expression can take more than linear time, by its structure and not by a clock.

Python's engine tries one way through a pattern after the other. It takes time in proportion to the text if the number
of ways to read any text is bounded. A pattern's positions (its literals and character classes) make an automaton; the
number of ways grows with the text exactly where two different positions p and q have a text on which p leads to p, p
leads to q and q leads to q (Weber and Seidl 1991), or where one step can be taken in two ways inside a loop.

Assertions are taken for true and large bounded repeats for unbounded ones, so a pattern that passes is linear; one that
does not pass may still be.
"""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from re import _constants as sre, _parser  # type: ignore[attr-defined]  # isort: skip

#: Bounded repeats up to this number are written out; larger ones are taken for unbounded.
_UNROLLED = 5


class Part(NamedTuple):
    """Of a pattern: positions it may begin and end with, once for each way; whether it can be empty."""

    first: list[int]
    last: list[int]
    empty: bool


class Automaton:
    """The positions of a pattern over the characters below 256; `searched`: it may begin anywhere in the text."""

    def __init__(self, pattern: re.Pattern[Any], *, searched: bool = False) -> None:
        self.sets: list[frozenset[int]] = []
        self.follow: list[list[int]] = []
        self._flags = pattern.flags
        part = self._sequence(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE))
        if searched:
            anywhere = self._position(frozenset(range(256)))
            self.follow[anywhere] += [anywhere, *part.first]

    def ambiguous(self) -> str | None:
        """Return what makes the number of ways grow with the text, or None."""
        for position, after in enumerate(self.follow):
            twice = [each for each in set(after) if after.count(each) > 1 and position in self._reach(each)]
            if twice:
                return f"from {self._name(position)} two ways lead to {self._name(twice[0])}"
        for p, q in product(range(len(self.sets)), repeat=2):
            if p != q and self._grows(p, q):
                return f"{self._name(p)} and {self._name(q)} read the same text"
        return None

    def _grows(self, p: int, q: int) -> bool:
        seen: set[tuple[int, int, int]] = set()
        waiting = [(p, p, q)]
        while waiting:
            for after in self._steps(waiting.pop()):
                if after == (p, q, q):
                    return True
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return False

    def _steps(self, three: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
        a, b, c = (set(self.follow[each]) for each in three)
        for x in a:
            for y in b:
                common = self.sets[x] & self.sets[y]
                if common:
                    for z in c:
                        if common & self.sets[z]:
                            yield x, y, z

    def _reach(self, start: int) -> set[int]:
        seen, waiting = {start}, [start]
        while waiting:
            new = set(self.follow[waiting.pop()]) - seen
            seen |= new
            waiting += new
        return seen

    def _name(self, position: int) -> str:
        codes = bytes(sorted(self.sets[position]))
        return f"position {position} {codes[:12]!r}"

    # ── from the parser's tree ───────────────────────────────────────────────────────────────

    def _position(self, codes: frozenset[int]) -> int:
        self.sets.append(codes)
        self.follow.append([])
        return len(self.sets) - 1

    def _single(self, codes: frozenset[int]) -> Part:
        if self._flags & re.IGNORECASE:
            codes |= {ord(chr(code).swapcase()) for code in codes if chr(code).isascii()}
        position = self._position(codes)
        return Part([position], [position], empty=False)

    def _sequence(self, items: Any) -> Part:
        whole = Part([], [], empty=True)
        for item in items:
            whole = self._join(whole, self._item(*item))
        return whole

    def _item(self, kind: Any, value: Any) -> Part:
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            return self._repeat(*value)
        if kind is sre.SUBPATTERN:
            before = self._flags
            self._flags |= value[1]
            part = self._sequence(value[-1])
            self._flags = before
            return part
        if kind is sre.ATOMIC_GROUP:
            return self._sequence(value)
        if kind is sre.BRANCH:
            parts = [self._sequence(each) for each in value[1]]
            first = [each for part in parts for each in part.first]
            last = [each for part in parts for each in part.last]
            return Part(first, last, empty=any(part.empty for part in parts))
        if kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            return Part([], [], empty=True)
        return self._single(frozenset(_codes([(kind, value)])))

    def _repeat(self, least: int, most: Any, items: Any) -> Part:
        if most <= _UNROLLED:
            part = Part([], [], empty=True)
            for number in range(most):
                one = self._sequence(items)
                part = self._join(part, one._replace(empty=one.empty or number >= least))
            return part
        part = self._sequence(items)
        for last in part.last:
            self.follow[last] += part.first
        return Part(part.first, part.last, empty=part.empty or least == 0)

    def _join(self, before: Part, after: Part) -> Part:
        for last in before.last:
            self.follow[last] += after.first
        return Part(
            before.first + after.first if before.empty else before.first,
            before.last + after.last if after.empty else after.last,
            empty=before.empty and after.empty,
        )


def _codes(items: Any) -> set[int]:
    found: set[int] = set()
    everything = set(range(256))
    negated = False
    for kind, value in items:
        if kind is sre.LITERAL:
            found |= {value} & everything
        elif kind is sre.NOT_LITERAL:
            found |= everything - {value}
        elif kind is sre.RANGE:
            found |= set(range(value[0], min(value[1], 255) + 1))
        elif kind is sre.ANY:
            found |= everything
        elif kind is sre.IN:
            found |= _codes(value)
        elif kind is sre.NEGATE:
            negated = True
        else:
            raise NotImplementedError(f"{kind} {value}")
    return everything - found if negated else found
