"""Draws a report: a picture per scenario, PNG and SVG.

Runs in the bench's own environment, which has matplotlib; `python -m bench plot` starts it there.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from bench.figures import by_round, errors, spread
from bench.report import MARK, Report, ScenarioReport, ranking

# Distinguishable also for colour-blind readers (Okabe and Ito, "Color Universal Design", 2008).
_COLOURS = {"subject": "#0072B2", "peer": "#999999", "limit": "#E69F00"}


def draw(report: Report, directory: Path) -> list[Path]:
    """Write `SCENARIO.png` and `.svg` for each scenario with figures; return the files written."""
    # Imported by name: matplotlib is not in the environment that checks types.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
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
    found = [one for one in spreads if one is not None]
    medians = [one.median for one in found]
    reach = [[one.median - one.low for one in found], [one.high - one.median for one in found]]
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
    _report = Report.from_json(json.loads(Path(sys.argv[1]).read_text()))
    for _path in draw(_report, Path(sys.argv[2])):
        print(_path)
