"""Makes reports of samples: a JSON document with all of them, and Markdown tables. Pure.

Every row that had errors carries a mark; a server without figures has a row that says why.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.figures import Sample, Spread, best, by_round, errors, ratios, spread

MARK = "⚠"


@dataclass
class ScenarioReport:
    """A scenario's samples, with the titles and notes of its table."""

    name: str
    title: str
    columns: list[dict[str, Any]]
    refused: dict[str, str] = field(default_factory=dict)
    skipped: str | None = None
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Report:
    """A whole run."""

    date: str
    machine: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str]
    roles: dict[str, str]
    scenarios: list[ScenarioReport]
    problems: list[str] = field(default_factory=list)
    format: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Report":
        """Undo to_json. Raises ValueError for another format."""
        if data.get("format") != 1:
            raise ValueError(f"not a bench report of format 1: format is {data.get('format')!r}")
        rest = {key: value for key, value in data.items() if key != "scenarios"}
        scenarios = []
        for entry in data["scenarios"]:
            samples = [Sample(**sample) for sample in entry["samples"]]
            scenarios.append(ScenarioReport(**{**entry, "samples": samples}))
        return cls(scenarios=scenarios, **rest)


def markdown(report: Report) -> str:
    """Return the whole report as Markdown."""
    parts = [_head(report)]
    parts += [_section(scenario, report.roles) for scenario in report.scenarios]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    settings = ", ".join(f"{key} {value}" for key, value in report.settings.items())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    lines = [f"Measured on {report.date}: {machine}.", f"Settings: {settings}.", f"Versions: {versions}."]
    lines += [f"**{MARK} {problem}**" for problem in report.problems]
    return "\n\n".join(lines)


def _section(scenario: ScenarioReport, roles: dict[str, str]) -> str:
    lines = [f"### {scenario.name}: {scenario.title}", ""]
    if scenario.skipped is not None:
        return "\n".join([*lines, f"{MARK} not measured: {scenario.skipped}"])
    lines += table(scenario, roles)
    lines += ["", *(f"* {name}: not measured, {reason}" for name, reason in scenario.refused.items())]
    notes = {f"* {sample.server}: {note}" for sample in scenario.samples for note in sample.notes}
    failures = {f"* {MARK} {s.server}: {s.failure}" for s in scenario.samples if s.failure is not None}
    return "\n".join([*lines, *sorted(notes), *sorted(failures)]).rstrip()


def ranking(scenario: ScenarioReport) -> list[str]:
    """Return the servers in the order of the main figure's median. Servers without figures come last."""
    key = scenario.columns[0]["key"]

    def place(server: str) -> tuple[bool, float]:
        found = spread(list(by_round(scenario.samples, server, key).values()))
        return (found is None, found.median if found else 0.0)

    return sorted(dict.fromkeys(sample.server for sample in scenario.samples), key=place)


def table(scenario: ScenarioReport, roles: dict[str, str]) -> list[str]:
    """Return the lines of a scenario's table."""
    samples = scenario.samples
    servers = ranking(scenario)
    main = scenario.columns[0]
    references = _references(scenario, roles) if main["compare"] else {}
    subjects = [name for name, role in roles.items() if role == "subject" and name in servers]
    subject = subjects[0] if subjects and main["compare"] else None  # the first subject of the report
    titles = ["server", main["title"], *references]
    if subject is not None:
        titles.append(f"{subject} ÷ it")
    titles += [*(column["title"] for column in scenario.columns[1:]), "errors"]
    lines = [_row(titles), _row(["---", *("---:" for _ in titles[1:])])]
    for server in servers:
        cells = [server, _cell(samples, server, main, wide=True)]
        cells += [_ratio(ratios(samples, server, other, main["key"])) for other in references.values()]
        if subject is not None:
            cells.append("" if server == subject else _ratio(ratios(samples, subject, server, main["key"])))
        cells += [_cell(samples, server, column, wide=False) for column in scenario.columns[1:]]
        lines.append(_row([*cells, _errors(errors(samples, server))]))
    return lines


def _references(scenario: ScenarioReport, roles: dict[str, str]) -> dict[str, str]:
    """Return title -> the server by which all rows are divided: the limit and the best peer, if they were measured."""
    key = scenario.columns[0]["key"]
    measured = [name for name in ranking(scenario) if by_round(scenario.samples, name, key)]
    found = {f"÷ {name}": name for name in measured if roles[name] == "limit"}
    peer = best(scenario.samples, [name for name in measured if roles[name] == "peer"], key)
    if peer is not None:
        found[f"÷ {peer} (best peer)"] = peer
    return found


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(samples: Sequence[Sample], server: str, column: dict[str, Any], *, wide: bool) -> str:
    found = spread(list(by_round(samples, server, column["key"]).values()))
    return "-" if found is None else _number(found, column["digits"], wide=wide)


def _number(found: Spread, digits: int, *, wide: bool) -> str:
    text = f"{found.median:.{digits}f}"
    return f"{text} ({found.low:.{digits}f}-{found.high:.{digits}f})" if wide else text


def _ratio(values: Sequence[float]) -> str:
    found = spread(values)
    return "-" if found is None else _number(found, 2, wide=True)


def _errors(total: dict[str, int]) -> str:
    if not total:
        return "0"
    return f"{MARK} " + ", ".join(f"{kind} {count}" for kind, count in sorted(total.items()))
