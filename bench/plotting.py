"""Draws pictures: of a report for each scenario, or of several reports for each family of rows.

Runs in the bench's own environment, which has matplotlib; `python -m bench plot` starts it there.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from bench.figures import by_round, errors, spread
from bench.page import FAMILIES
from bench.report import MARK, Report, ScenarioReport, ranking

# Colours that colour-blind readers can distinguish (Okabe and Ito, "Color Universal Design", 2008).
_COLOURS = {"subject": "#0072B2", "peer": "#999999", "limit": "#E69F00"}


def _pyplot() -> Any:
    # Imported by name: matplotlib is not in the environment that checks types.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file
    return importlib.import_module("matplotlib.pyplot")


def draw_families(reports: list[Report], directory: Path) -> list[Path]:
    """Write `bench-FAMILY.svg` for each family of rows that was measured; return the files written."""
    pyplot, written = _pyplot(), []
    for family, names in FAMILIES.items():
        found = [
            (scenario, report.roles)
            for name in names
            for report in reports
            for scenario in report.scenarios
            if scenario.name == name and any(sample.figures for sample in scenario.samples)
        ]
        if found:
            most = max(len(ranking(scenario)) for scenario, _ in found)
            size = (8, (0.9 + 0.32 * most) * len(found))
            figure, axes = pyplot.subplots(len(found), figsize=size, layout="constrained", squeeze=False)
            for (scenario, roles), place in zip(found, axes[:, 0], strict=True):
                measured = [x for x in ranking(scenario) if by_round(scenario.samples, x, scenario.columns[0]["key"])]
                _bars(place, scenario, measured, roles)
            written.append(directory / f"bench-{family}.svg")
            figure.savefig(written[-1], metadata={"Date": None})
            pyplot.close(figure)
    return written


def draw(report: Report, directory: Path) -> list[Path]:
    """Write `SCENARIO.png` and `.svg` for each scenario with figures; return the files written."""
    pyplot = _pyplot()
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for scenario in report.scenarios:
        key = scenario.columns[0]["key"]
        servers = [name for name in ranking(scenario) if by_round(scenario.samples, name, key)]
        if not servers:
            continue
        figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.45 * len(servers)), layout="constrained")
        _bars(axes, scenario, servers, report.roles)
        for ending in ("png", "svg"):
            path = directory / f"{scenario.name}.{ending}"
            figure.savefig(path, dpi=150, metadata={"Date": None} if ending == "svg" else None)
            written.append(path)
        pyplot.close(figure)
    return written


def _bars(axes: Any, scenario: ScenarioReport, servers: list[str], roles: dict[str, str]) -> None:
    column = scenario.columns[0]
    spreads = [spread(list(by_round(scenario.samples, name, column["key"]).values())) for name in servers]
    found = [each for each in spreads if each is not None]
    medians = [each.median for each in found]
    reach = [[each.median - each.low for each in found], [each.high - each.median for each in found]]
    labels = [f"{name} {MARK}" if errors(scenario.samples, name) else name for name in servers]
    bars = axes.barh(labels, medians, xerr=reach, color=[_COLOURS[roles[name]] for name in servers], capsize=3)
    axes.bar_label(bars, labels=[f"{value:.{column['digits']}f}" for value in medians], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.1)  # room for the last label
    axes.set_title(scenario.title, fontsize=10)
    axes.set_xlabel(
        f"{column['title']} (median of rounds, with the smallest and the largest; less is better)", fontsize=8
    )
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    *_files, _directory = map(Path, sys.argv[1:])
    _reports = [Report.from_json(json.loads(_file.read_text())) for _file in _files if _file.name != "families"]
    _families = any(_file.name == "families" for _file in _files)
    for _path in draw_families(_reports, _directory) if _families else draw(_reports[0], _directory):
        print(_path)
