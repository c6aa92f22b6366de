"""Random generators that the app made at import: a fork gives each worker the same numbers from them.

Runs in the zygote (and in `aserver check`), called by `preload`. It must change no generator: a program may count on
its numbers. It undoes its patch of `random.Random`. Python seeds its own generator anew in a fork, and `secrets` and
`uuid4()` ask the kernel; numpy's generators are not seen.
"""

import os
import random
import traceback
import weakref
from types import TracebackType
from typing import Any, Self

from aserver.importer import user_place

#: Places that a line names.
NAMED = 3
#: Generators of installed packages are not told: their users cannot change them (aiohttp makes a generator for its
#: masks).
LIBRARIES = ("site-packages", "dist-packages")
#: Generators of the standard library are not told either: it makes tempfile's anew in a fork.
_STANDARD = os.path.dirname(random.__file__)


class RandomWatch:
    """While entered, notes the user's line that makes each `random.Random` without a seed."""

    def __init__(self) -> None:
        self._made: list[tuple[weakref.ref[random.Random], str]] = []

    def __enter__(self) -> Self:
        self._original = original = random.Random.__init__
        made = self._made

        def init(generator: random.Random, x: Any = None) -> None:
            original(generator, x)
            if x is None and type(generator).random is random.Random.random:  # SystemRandom has no numbers of its own
                stack = traceback.extract_stack(limit=40)
                place = None if os.path.dirname(stack[-2].filename) == _STANDARD else user_place(stack)
                if place is not None and not any(folder in place for folder in LIBRARIES):
                    made.append((weakref.ref(generator), place))

        random.Random.__init__ = init  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        random.Random.__init__ = self._original  # type: ignore[method-assign]

    def remarks(self) -> tuple[str, ...]:
        """A sentence that names the generators that still exist, if any."""
        places = dict.fromkeys(place for generator, place in self._made if generator() is not None)
        if not places:
            return ()
        more = f"; and {len(places) - NAMED} more" if len(places) > NAMED else ""
        sentence = (
            f"random.Random() was made at import, {'; '.join(list(places)[:NAMED])}{more}: all workers get the same "
            "numbers from it; call its seed() in lifespan startup, or use the functions of `random` or `secrets`"
        )
        return (sentence,)
