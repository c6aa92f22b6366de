"""The fixture of tests of other servers' settings."""

from pathlib import Path

import pytest

from tests.unit.command.migrating import Migrate, migrating


@pytest.fixture
def migrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Migrate:
    """See `migrating`."""
    return migrating(tmp_path, monkeypatch, capsys)
