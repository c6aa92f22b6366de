"""A reload reads the settings beside the loop, and builds on the resources that the reload before it has made."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from aserver.config import Resolved
from aserver.errors import ConfigError
from aserver.master.core.events import ReloadRequested
from aserver.master.journal import Journal
from aserver.master.reload import Reloads
from aserver.master.resources import AllResources, provide
from tests.harness import PATIENCE
from tests.unit.master.stage import settings

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop


class Stage:
    """Reloads of a server whose settings are what `reread` says; `begun` are the generations that are asked for."""

    def __init__(self, resources: AllResources, reread: Callable[[], Resolved]) -> None:
        self.resources = resources
        self.begun: list[str] = []
        self.journal = Journal()
        self.reloads = Reloads(resources, reread, self._begin, self.journal.say, own_process=False)

    def _begin(self, request: ReloadRequested) -> None:
        self.begun.append(request.why)


@pytest.fixture
async def resources(tmp_path: Path) -> AsyncIterator[AllResources]:
    made = AllResources(provide(settings(tmp_path), {}))
    yield made
    made.close()


async def test_reloads_whose_settings_are_read_at_once_build_on_each_other(
    resources: AllResources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails with an `AllResources.next` taken before the reading: the second finds the address bound, by us."""
    both = threading.Barrier(2, timeout=PATIENCE)

    def reread() -> Resolved:
        both.wait()
        return settings(tmp_path, bind=[f"unix:{tmp_path}/new.sock"])

    stage = Stage(resources, reread)
    stage.reloads.request("one", ())
    stage.reloads.request("two", ())
    assert stage.reloads.busy
    await asyncio.gather(*stage.reloads.tasks)
    assert not stage.reloads.busy
    assert "refused" not in caplog.text
    assert sorted(stage.begun) == ["one", "two"]
    assert list(resources.next.bound) == [f"unix:{tmp_path}/new.sock"]
    assert not (tmp_path / "old.sock").exists(), "nothing that was never given stays bound"


async def test_a_mistake_in_the_settings_changes_nothing(
    resources: AllResources, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails without the except: the task would end with an error that is logged by asyncio, much later."""

    def reread() -> Resolved:
        raise ConfigError("workers = 'many' (aserver.toml) is no number")

    stage, before = Stage(resources, reread), resources.next
    stage.reloads.request("SIGHUP", (7,))
    await asyncio.gather(*stage.reloads.tasks)
    refused = "reload (SIGHUP) refused, everything stays as it is: workers = 'many' (aserver.toml) is no number"
    assert caplog.messages == [refused]
    (record,) = stage.journal.records
    assert (record.event, record.outcome, record.tickets) == ("reload.ends", "refused", (7,))
    assert resources.next is before
    assert stage.begun == []


async def test_a_setting_that_a_reload_cannot_change_is_named(
    resources: AllResources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails without the remarks of `provide_next`."""
    stage = Stage(resources, lambda: settings(tmp_path, proc_name="other"))
    stage.reloads.request("SIGHUP", (7,))
    caplog.set_level(logging.DEBUG, "aserver.master")
    await asyncio.gather(*stage.reloads.tasks)
    remark, changed = caplog.messages
    assert changed == "reload (SIGHUP): settings that changed: none", "as proc_name stays"
    assert remark.startswith("reload (SIGHUP): proc_name is 'other' in the settings, but stays ")
    assert stage.begun == ["SIGHUP"]
