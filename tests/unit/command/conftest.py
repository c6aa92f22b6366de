"""The fixtures of tests that run the command in this process."""

from pathlib import Path

import pytest

from aserver.config import settings
from tests.unit.command.migrating import Migrate, migrating
from tests.unit.command.stage import Command


@pytest.fixture
def aserver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    for name in (
        "WEB_CONCURRENCY",
        "PORT",
        "FORWARDED_ALLOW_IPS",
        "GUNICORN_CMD_ARGS",
        *(info.variable for info in settings()),
    ):
        monkeypatch.delenv(name, raising=False)
    return Command(capsys)


@pytest.fixture
def migrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Migrate:
    """See `migrating`."""
    return migrating(tmp_path, monkeypatch, capsys)
