"""The command, run in this process."""

import json
from dataclasses import dataclass

import pytest

from aserver.command.cli import main


@dataclass(frozen=True)
class Outcome:
    status: object
    out: str
    err: str


class Command:
    """Runs `aserver ...` in this process, in an empty directory, without the caller's environment."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        return Outcome(caught.value.code, *self.capsys.readouterr())

    def settings(self, *arguments: str) -> dict[str, object]:
        outcome = self("config", "--json", *arguments)
        assert (outcome.status, outcome.err) == (0, "")
        return {name: row["value"] for name, row in json.loads(outcome.out)["settings"].items()}
