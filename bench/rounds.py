"""Plans and runs measurements: in each round all scenarios, in each scenario all servers.

Runs in the harness process. A measurement that fails becomes a sample with the failure; the run goes on.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bench.environment import Environment
from bench.figures import Sample, rotate
from bench.load.wrk import WrkError
from bench.machine import MissingToolError, tool
from bench.scenarios.contract import MeasureError, Scenario, Stage
from bench.servers import Server, StartError

QUICK_SECONDS = 295.0  # of a quick run
# Seconds of a quick run that are kept for the report, and for measurements that take longer than estimated.
_MARGIN = 25.0


@dataclass
class Plan:
    """The measurements of a run. `refused` (by scenario and server) and `skipped` (by scenario) have reasons."""

    stage: Stage
    rounds: int
    scenarios: list[Scenario]
    servers: dict[str, list[Server]]
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def plan(
    stage: Stage, rounds: int, scenarios: Sequence[Scenario], servers: Sequence[Server], versions: dict[str, str]
) -> Plan:
    """Give each scenario the servers that can run it. `versions` has the installed modules."""
    made = Plan(stage, rounds, [], {})
    for scenario in scenarios:
        try:
            for name in scenario.tools:
                tool(name)
        except MissingToolError as missing:
            made.skipped[scenario.name] = str(missing)
            continue
        launch = scenario.launch(stage)
        able = []
        refused = made.refused.setdefault(scenario.name, {})
        for server in servers:
            reason = server.refusal(scenario.name, launch)
            if server.module not in versions:
                reason = f"{server.module} is not installed"
            if reason is None:
                able.append(server)
            else:
                refused[server.name] = reason
        made.scenarios.append(scenario)
        made.servers[scenario.name] = able
    made.seconds = sum(
        scenario.estimate(stage) * len(made.servers[scenario.name]) * min(rounds, scenario.most_rounds)
        for scenario in made.scenarios
    )
    return made


def fit(
    stage: Stage, scenarios: Sequence[Scenario], servers: Sequence[Server], versions: dict[str, str], limit: float
) -> Plan:
    """Make the most thorough plan for `limit` seconds. Loads are shortened before rounds are left out."""
    made = None
    for rounds, seconds in ((5, 3), (5, 2), (3, 2), (3, 1), (2, 1), (1, 1)):
        made = plan(replace(stage, seconds=seconds), rounds, scenarios, servers, versions)
        if made.seconds <= limit - _MARGIN:
            break
    assert made is not None
    return made


def execute(
    made: Plan, step: Callable[[str, float], None], report: Callable[[Sample], None], deadline: float | None = None
) -> str | None:
    """Run the plan. Call `step` with the label of each measurement and the seconds done, `report` with each sample.

    Return the reason of an early end, or None. KeyboardInterrupt ends the run after the running server was stopped.
    """
    try:
        for number in range(made.rounds):
            for scenario in made.scenarios:
                if number >= scenario.most_rounds:
                    continue
                servers = {server.name: server for server in made.servers[scenario.name]}
                cost = scenario.estimate(made.stage)
                for name in rotate(list(servers), number):
                    if deadline is not None and time.monotonic() + cost > deadline:
                        return "the time was up before the last measurements"
                    step(f"round {number + 1}/{made.rounds} {scenario.name} {name}", 0.0)
                    report(_measure(made.stage, scenario, servers[name], number))
                    step("", cost)
    except KeyboardInterrupt:
        return "interrupted"
    return None


def _measure(stage: Stage, scenario: Scenario, server: Server, number: int) -> Sample:
    try:
        outcome = scenario.measure(stage, server)
    except (StartError, WrkError, MeasureError, MissingToolError, OSError) as error:
        print(f"\nbench: {scenario.name}, {server.name}: {error}", file=sys.stderr)
        return Sample(scenario.name, server.name, number, failure=f"{type(error).__name__}: {error}")
    return Sample(scenario.name, server.name, number, outcome.figures, outcome.errors, outcome.notes)


def versions(environment: Environment, servers: Sequence[Server]) -> dict[str, str]:
    """Return the versions of the installed servers, by module."""
    return environment.versions([(server.module, server.distribution) for server in servers])
