"""Handles of processes, from one image of the master to the next."""

import os

import pytest

from aserver.master.handles import WorkerHandle
from aserver.master.snapshot import SavedWorker, SavedZygote
from tests.unit.master.stage import Stage

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop


async def test_an_upgrade_saves_and_restores_both(stage: Stage) -> None:
    """Fails with a field of a handle left out of `saved` or `restored`."""
    worker = await stage.fork()
    worker.trace_offset, worker.status = 7, 9
    saved = worker.saved(SavedWorker)
    assert saved.channel is not None
    saved.channel = os.dup(saved.channel)
    again = WorkerHandle.restored(saved)
    assert again.saved(SavedWorker) == saved
    assert again.channel is not None
    again.channel.close()
    assert stage.all.zygotes[1].saved(SavedZygote).generation == 1
