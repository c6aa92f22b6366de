"""Puts reports into the documents: a row for each scenario, between two marks of a page. Pure.

docs/performance.md has all rows, README six of them (`python -m bench page`). It must never average over runs: each row
is of one report, whose date and machine stand below the table.
"""

import re
from collections.abc import Sequence

from bench.figures import best, by_round, errors, ratios, spread
from bench.report import MARK, Report, ScenarioReport

SUBJECT, PURE = "aserver", "aserver-pure"
#: Each family of rows is a picture.
FAMILIES = {
    "requests": ("headers-varied", "hello", "headers", "access-log", "pipeline-16", "metrics"),
    "frameworks": ("fastapi", "wsgi-flask"),
    "bodies": ("post-64k", "blob-1m", "stream-100"),
    "connections": ("connect", "tls", "nginx-unix", "workers-2"),
    "http2": ("h2-hello", "h2-10", "h2-headers", "h2-tls", "h2-post"),
    "websockets": ("ws-64", "ws-64k"),
}
#: The rows of README.
FEW = ("headers-varied", "hello", "fastapi", "connect", "tls", "ws-64")
#: Peers that have a column of their own, where they were measured.
_PEERS = {"uvicorn-httptools": "uvicorn", "granian": "granian", "h2corn": "h2corn", "peregrine": "peregrine"}


def table(reports: Sequence[Report], names: Sequence[str] = (), before: str = "") -> list[str]:
    """Return the rows of the scenarios in `names`, or of all. Each figure is a median, with the smallest and largest.

    A scenario's row comes from the last report that has it. If none has it, its row in `before`, the old page, stays.
    """
    rows = {line.removeprefix("| ").split(" ")[0]: line for line in before.splitlines() if line.startswith("| ")}
    for report in reports:
        for scenario in report.scenarios:
            if by_round(scenario.samples, SUBJECT, _key(scenario)):
                rows[scenario.name] = _line(_row(scenario, report))
    titles = ["row", "aserver, µs", "÷ limit", "÷ best peer", "best peer", *(f"÷ {title}" for title in _PEERS.values())]
    head = [*titles, "interpreted ÷ best peer"]
    order = names or [name for family in FAMILIES.values() for name in family]
    return [_line(head), _line(["---", *("---:" for _ in head[1:])]), *(rows[name] for name in order if name in rows)]


def origins(reports: Sequence[Report], before: str = "") -> list[str]:
    """Return a line for each report: when, where and with which versions its rows were measured. See `table`."""
    new = {scenario.name for report in reports for scenario in report.scenarios}
    lines = []
    for date, names, rest in re.findall(r"^\* (\d{4}-\d\d-\d\d \d\d:\d\d): ([^.]*)\. (.*)$", before, re.MULTILINE):
        left = [name for name in names.split(", ") if name not in new]
        lines += [f"* {date}: {', '.join(left)}. {rest}"] if left else []
    for number, report in enumerate(reports):
        later = {scenario.name for other in reports[number + 1 :] for scenario in other.scenarios}
        names = ", ".join(scenario.name for scenario in report.scenarios if scenario.name not in later)
        facts = ", ".join(f"{key} {value}" for key, value in {**report.machine, **report.settings}.items())
        versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
        lines += [f"* {report.date}: {names}. {facts}. {versions}."] if names else []
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def between(page: str, mark: str) -> str:
    """Return the lines of a page that `replaced` would replace."""
    return page.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- end of {mark} -->")[0]


def replaced(page: str, mark: str, lines: Sequence[str]) -> str:
    """Return the page with `lines` between `<!-- MARK -->` and `<!-- end of MARK -->`, or raise ValueError."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page has no place for {mark}: {begin.strip()} ... {end}")
    before, _, rest = page.partition(begin)
    return before + begin + "\n".join(["", *lines, "", ""]) + end + rest.partition(end)[2]


def _key(scenario: ScenarioReport) -> str:
    return str(scenario.columns[0]["key"])


def _row(scenario: ScenarioReport, report: Report) -> list[str]:
    key, samples = _key(scenario), scenario.samples
    peers = [name for name, role in report.roles.items() if role == "peer"]
    peer = best(samples, peers, key)
    limit = next((name for name, role in report.roles.items() if role == "limit"), "")
    own = spread(list(by_round(samples, SUBJECT, key).values()))
    assert own is not None
    mark = f" {MARK}" if errors(samples, SUBJECT) else ""
    return [
        scenario.name + mark,
        f"{own.median:.1f} ({own.low:.1f}-{own.high:.1f})",
        _ratio(scenario, SUBJECT, limit),
        _ratio(scenario, SUBJECT, peer or "", wide=True),
        _PEERS.get(peer or "", peer or "-"),
        *(_ratio(scenario, SUBJECT, name) for name in _PEERS),
        _ratio(scenario, PURE, peer or ""),
    ]


def _ratio(scenario: ScenarioReport, server: str, other: str, *, wide: bool = False) -> str:
    found = spread(ratios(scenario.samples, server, other, _key(scenario)))
    if found is None:
        return "-"
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})" if wide else f"{found.median:.2f}"
