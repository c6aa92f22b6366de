"""Real applications behind the real command: visited by their own clients while workers recycle and code is reloaded.

A group of its own (`make apps`), since it installs those applications; `make test` passes over it. NiceGUI is
visited by a socket.io client that does as its script does; `test_nicegui` has a browser.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.applications import errands
from tests.applications.errands import Errand, Errands
from tests.harness import ServerProcess
from tests.harness.server import REPOSITORY

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not os.environ.get("TEST_APPLICATIONS"), reason="`make apps` runs it"),
]

REAL = "tests.apps.real"
#: Until a worker is replaced. An errand is 2 to 20 requests.
MAX_REQUESTS = 40


@dataclass(frozen=True)
class Application:
    module: str
    errands: tuple[Errand, ...]
    workers: int = 2
    prepared: bool = False  # by running its module
    log: str = "app loaded"  # stands in the log


APPLICATIONS = (
    Application("datasette_site", (errands.browse_datasette, errands.stream_datasette)),
    Application(
        "django_project",
        (errands.admin, errands.upload_django, errands.stream_django, errands.channels),
        prepared=True,
    ),
    Application("flask_pool", (errands.browse_flask, errands.upload_flask), log="an open SQLite database"),
    Application("nicegui_pages", (errands.click,), workers=1),
    Application("mcp_tools", (errands.call_tool,)),
    Application("socketio_chat", (errands.chat,)),
    Application("graphql_clock", (errands.query, errands.subscribe)),
)


@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda each: each.module)
def test_no_request_is_lost(application: Application, server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """Visited until it has stopped: recycled, reloaded, stopped. Fails with workers that are killed, not drained."""
    target, env = f"{REAL}.{application.module}", {"NOTES_DB": str(tmp_path / "notes.db")}
    if application.prepared:
        subprocess.run([sys.executable, "-m", target], cwd=REPOSITORY, env={**os.environ, **env}, check=True)
    limits = ("--max-requests", str(MAX_REQUESTS), "--min-lifetime", "0", "--canary-time", "0")
    running = server(f"{target}:app", "--workers", str(application.workers), "--preload", *limits, env=env)
    assert application.log in running.log
    with Errands(running.url, application.errands) as visitors:
        visitors.wait_for_more(3)
        running.wait_log("has left", timeout=60)
        running.signal(signal.SIGHUP)
        running.wait_log("reload complete: generation 2 serves", timeout=60)
        visitors.wait_for_more(3)
        visitors.expect_the_end()
        assert running.stop() == 0
    assert visitors.lost == []
