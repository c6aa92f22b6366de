"""The notice of a drain, as applications hold it."""

import asyncio
import copy

from aserver.protocol.drain_notice import Draining


async def test_a_scope_can_be_copied_though_somebody_waits_for_the_drain() -> None:
    """A copy of the notice is the notice. Fails without `__deepcopy__`: a future cannot be copied."""
    draining = Draining()
    waiting = asyncio.create_task(draining.wait())
    await asyncio.sleep(0)
    assert copy.copy(draining) is draining
    assert copy.deepcopy({"extensions": {"aserver.draining": draining}})["extensions"]["aserver.draining"] is draining
    draining.set()
    await waiting
