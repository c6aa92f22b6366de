"""Connections that wait for a turn go on one at a time."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from aserver.protocol.fair_queue import FairQueue
from tests.harness.waiting import eventually


async def test_one_goes_on_in_each_turn_and_those_who_waited_longest_first() -> None:
    loop = asyncio.get_running_loop()
    turns = FairQueue(loop, copy_context())
    called: list[str] = []

    def waits(name: str, times: int) -> Callable[[], None]:
        def go_on() -> None:
            nonlocal times
            called.append(name)
            times -= 1
            if times:
                turns.wait(go_on)

        return go_on

    for name in "abc":
        turns.wait(waits(name, 3))
    seen = []
    for _ in range(10):
        await asyncio.sleep(0)
        seen.append(len(called))
    assert "".join(called) == "abcabcabc"
    assert all(after - before <= 1 for before, after in zip([0, *seen], seen, strict=False))


async def test_who_fails_does_not_stop_the_others() -> None:
    loop = asyncio.get_running_loop()
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    turns = FairQueue(loop, copy_context())
    called: list[int] = []
    turns.wait(lambda: called.remove(2))
    turns.wait(lambda: called.append(1))
    await eventually(lambda: called)
    assert [type(error) for error in told] == [ValueError]
    loop.set_exception_handler(None)
