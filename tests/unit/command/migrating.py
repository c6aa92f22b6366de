"""`aserver migrate`, run in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aserver.command.cli import main
from tests.unit.command.stage import Outcome

Migrate = Callable[..., Outcome]


def migrating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Migrate:
    """The command, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as caught:
            main(["migrate", *arguments])
        return Outcome(caught.value.code, *capsys.readouterr())

    return called
