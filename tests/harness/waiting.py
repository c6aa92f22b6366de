"""Wait for a condition with a deadline: the only way a test lets time pass. `wait_for` blocks, `eventually` awaits."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds that anything expected may take. Generous, because CI machines are shared; TEST_PATIENCE raises it.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "20"))


def wait_for(
    condition: Callable[[], T],
    timeout: float | None = None,
    what: str = "the condition",
    explain: Callable[[], str] = lambda: "",
) -> T:
    """Call `condition` until it returns something true, and return that.

    `timeout` in seconds, PATIENCE if None. Raises AssertionError that names `what` and ends with `explain()`.
    """
    limit = PATIENCE if timeout is None else timeout
    deadline = time.monotonic() + limit
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit:g} s in vain for {what} (last value: {value!r})\n{explain()}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


async def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Let the running loop turn until `condition()` is true. Raises AssertionError that names `what` after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain for {what}"
        await asyncio.sleep(0.002)


async def turns_of_the_loop(count: int = 5) -> None:
    """Let the running loop turn: descriptors that were ready have been read, and callbacks called that these led to."""
    for _ in range(count):
        await asyncio.sleep(0)
