"""Finds which types have grown since the application was loaded, and so why a worker's memory has.

Runs where the application is loaded, before its objects are frozen, and in a worker that leaves because of
`max_memory`. It counts all objects, also those that hold no others, such as bytes: they are found in what holds them.
"""

import gc
import sys
from collections.abc import Iterator

#: The most types that are named, and the least growth in bytes.
MOST, LEAST = 10, 64 << 10
#: Modules whose `__sizeof__` is quick and counts no other object's memory. Of other types the bare object counts.
_PLAIN = frozenset(("builtins", "collections", "array", "numpy"))


class Heap:
    """The objects of this process at one time: number and bytes by type."""

    def __init__(self) -> None:
        self.found: dict[type, tuple[int, int]] = {}
        for each in _objects():
            kind = type(each)
            size = sys.getsizeof(each) if kind.__module__ in _PLAIN else object.__sizeof__(each)
            number, before = self.found.get(kind, (0, 0))
            self.found[kind] = number + 1, before + size

    def growth(self) -> list[str]:
        """The types that have grown most since this was made, the largest first: `builtins.dict +1200 (+3.5 MiB)`."""
        gc.collect()
        gc.unfreeze()
        grown: list[tuple[int, int, str]] = []
        for kind, (number, size) in Heap().found.items():
            old_number, old_size = self.found.get(kind, (0, 0))
            grown.append((size - old_size, number - old_number, f"{kind.__module__}.{kind.__qualname__}"))
        largest = sorted(grown, reverse=True)[:MOST]
        return [f"{name} {number:+} (+{size / 2**20:.1f} MiB)" for size, number, name in largest if size >= LEAST]


def _objects() -> Iterator[object]:
    """Every object that the collector tracks, and, once each, the untracked objects in those."""
    known = set[int]()
    for tracked in gc.get_objects():
        yield tracked
        inner = gc.get_referents(tracked)
        while inner:
            each = inner.pop()
            if not gc.is_tracked(each) and id(each) not in known:
                known.add(id(each))
                yield each
                inner += gc.get_referents(each)
