"""The plan of a run: as many rounds as fit, and servers that have no row."""

from pathlib import Path

import pytest

from bench import servers
from bench.environment import locate
from bench.rounds import fit, plan
from bench.scenarios import SCENARIOS
from bench.scenarios.contract import Stage


def test_a_quick_plan_gives_up_rounds_and_seconds_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.rounds.tool", lambda name: name)
    stage = Stage(locate("python3"), frozenset({0, 1}), tmp_path, 5)
    chosen = list(servers.read().values())
    versions = {server.module: "1" for server in chosen}
    hello = [SCENARIOS["hello"]]
    roomy = fit(stage, hello, chosen, versions, 1000)
    tight = fit(stage, hello, chosen, versions, 140)
    assert roomy.rounds > tight.rounds
    assert tight.seconds <= 140 < plan(stage, 5, hello, chosen, versions).seconds


def test_a_server_that_is_not_installed_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.rounds.tool", lambda name: name)
    stage = Stage(locate("python3"), frozenset({0, 1}), tmp_path, 1)
    made = plan(stage, 1, [SCENARIOS["hello"]], [servers.read()["granian"]], {})
    assert made.refused == {"hello": {"granian": "granian is not installed"}}
    assert made.servers == {"hello": []}
