"""`bench run --quick`: its minutes are for measuring."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from bench import __main__ as bench
from bench import environment, rounds
from bench.environment import Environment
from bench.figures import Sample
from bench.report import Report


def test_the_set_up_of_a_fresh_clone_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It installs for longer than the whole quick run may take. Fails with `began` before environment.prepare."""
    clock = SimpleNamespace(now=1000.0)
    planned: list[float] = []
    ends: list[float | None] = []

    def prepare(_python: str) -> tuple[Environment, list[str]]:
        clock.now += 10 * rounds.QUICK_SECONDS
        return Environment(tmp_path), []

    def fit(stage: Any, scenarios: Any, _servers: Any, _versions: Any, limit: float) -> rounds.Plan:
        planned.append(limit)
        return rounds.Plan(stage, 1, list(scenarios), {})

    def execute(
        _plan: rounds.Plan, _step: object, _report: Callable[[Sample], None], deadline: float | None = None
    ) -> None:
        ends.append(deadline)

    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(environment, "prepare", prepare)
    monkeypatch.setattr(rounds, "versions", lambda *_: {})
    monkeypatch.setattr(rounds, "fit", fit)
    monkeypatch.setattr(rounds, "execute", execute)
    monkeypatch.setattr(bench, "_report", lambda *_: Report("", {}, {}, {}, {}, [], []))
    monkeypatch.setattr(bench, "_write", lambda *_: None)
    monkeypatch.setattr(bench, "_end_on_sigterm", lambda: None)
    result = CliRunner().invoke(bench.main, ["run", "--quick"])
    assert result.exit_code == 0, result.output
    assert planned == [rounds.QUICK_SECONDS]
    assert ends == [clock.now + rounds.QUICK_SECONDS - 5]
