"""Simulates a large fleet under several policies of jitter and surge. Results: JSON, a table, a picture.

Runs in the harness process, and for each policy in a child of it. It must never open a socket. `bench.fleet` is the
fleet with its fake clock; `aserver.master` decides.
"""

import importlib
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from aserver.config import Config
from aserver.master.core.limits import Limits
from bench.fleet import Fleet, Moment, Record, Times, between

HOUR = 3600.0
#: Seconds of a step of the record: half of the usual boot, so that a boot is longer than a step.
STEP = 10.0


@dataclass(frozen=True)
class Size:
    """The size of the fleet, and the length of the simulation; times in seconds."""

    hosts: int = 1000
    workers: int = 10  # per host
    seconds: float = 3.25 * 24 * HOUR
    lifetime: float = 24 * HOUR
    jitter: float = 2 * HOUR
    boot: float = 20.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Bound:
    """The most workers of a host that change at once. `max_unavailable` None means all of them."""

    name: str
    max_surge: int
    max_unavailable: int | None


#: The policies. "no bound" is the policy of servers whose workers leave at once and are then started again.
BOUNDS = (
    Bound("max_surge=1, max_unavailable=0", 1, 0),
    Bound("max_surge=0, max_unavailable=1", 0, 1),
    Bound("no bound", 0, None),
)


@dataclass(frozen=True, slots=True)
class Wave:
    """A recycling of the whole fleet: its begin and end, and the most workers that booted at the same time."""

    begin: float
    end: float
    most: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a policy."""

    bound: Bound
    jitter: float
    record: Record

    @property
    def waves(self) -> list[Wave]:
        """The recyclings of the fleet. Boots less than an hour apart belong to the same recycling."""
        found: list[Wave] = []
        for moment, following in pairwise(self.record.moments):
            if not moment.booting or moment.at < self.record.complete_at:
                continue
            if found and moment.at - found[-1].end < HOUR:
                before = found.pop()
                found.append(Wave(before.begin, following.at, max(before.most, moment.booting)))
            else:
                found.append(Wave(moment.at, following.at, moment.booting))
        return found


def simulate(size: Size, bound: Bound, jitter: float) -> Outcome:
    """Simulate a fleet."""
    unavailable = size.workers if bound.max_unavailable is None else bound.max_unavailable
    config = Config(
        max_surge=bound.max_surge,
        max_unavailable=unavailable,
        max_lifetime=size.lifetime,
        max_lifetime_jitter=jitter,
        boot_timeout=20 * size.boot,  # nothing fails here
        graceful_timeout=60.0,
    )
    limits = Limits.of(config, size.workers)
    fleet = Fleet(size.hosts, limits, Times(boot=size.boot), size.seed, STEP)
    return Outcome(bound, jitter, fleet.run(size.seconds))


def simulate_all(size: Size) -> list[Outcome]:
    """Simulate each bound without jitter, then with it, in as many processes as there are CPUs."""
    cases = [(bound, jitter) for jitter in (0.0, size.jitter) for bound in BOUNDS]
    with ProcessPoolExecutor() as pool:
        running = [pool.submit(simulate, size, bound, jitter) for bound, jitter in cases]
        return [each.result() for each in running]


# ── tables and JSON ──────────────────────────────────────────────────────────────────────────


def table(size: Size, outcomes: Sequence[Outcome]) -> str:
    """Return the numbers as a table in Markdown."""
    wanted = size.hosts * size.workers
    titles = (
        "bound",
        "jitter",
        "fewest serving",
        "on one host",
        "worker-hours missing",
        "most booting at once",
        "one recycling takes",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for each in outcomes:
        record = each.record
        cells = (
            each.bound.name,
            f"{each.jitter / HOUR:g} h" if each.jitter else "none",
            f"{record.fewest:,} ({record.fewest / wanted:.1%})",
            f"{record.fewest_on_a_host} of {size.workers}",
            f"{record.missing / HOUR:,.0f}",
            ", then ".join(f"{wave.most:,}" for wave in each.waves),
            ", then ".join(f"{(wave.end - wave.begin) / 60:.0f} min" for wave in each.waves),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def to_json(size: Size, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return all results. `series` has [second, fewest serving, most booting] of each step with a change."""
    cases = []
    for each in outcomes:
        numbers = {key: value for key, value in asdict(each.record).items() if key != "moments"}
        series = [[moment.at, moment.serving, moment.booting] for moment in each.record.moments]
        cases.append({"bound": asdict(each.bound), "jitter": each.jitter, **numbers, "series": series})
    return {"size": asdict(size), "cases": cases}


def from_json(data: dict[str, Any]) -> tuple[Size, list[Outcome]]:
    """Undo `to_json`. Raises KeyError or TypeError for other data."""
    outcomes = []
    for case in data["cases"]:
        numbers = {key: value for key, value in case.items() if key not in ("bound", "jitter", "series")}
        record = Record(moments=[Moment(*values) for values in case["series"]], **numbers)
        outcomes.append(Outcome(Bound(**case["bound"]), case["jitter"], record))
    return Size(**data["size"]), outcomes


# ── drawing ──────────────────────────────────────────────────────────────────────────────────

# Colours that colour-blind readers can distinguish (Okabe and Ito, "Color Universal Design", 2008).
_COLOURS = ("#0072B2", "#E69F00", "#999999")
#: Seconds of a step in pictures of days. With more points the file would be larger, and the picture the same.
_COARSE = 300.0


def draw(size: Size, outcomes: Sequence[Outcome], directory: Path) -> list[Path]:
    """Write fleet.png and fleet.svg; return the files written. Needs matplotlib (ImportError)."""
    # Imported by name: matplotlib is not in the environment that checks types.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6), layout="constrained")
    # The worst policy is drawn first, so that the best is on top of it.
    for index, bound in reversed(list(enumerate(BOUNDS))):
        for each in (outcome for outcome in outcomes if outcome.bound == bound):
            _lines(axes[:, 2 if each.jitter else 0], each, size, _COLOURS[index])
            if not each.jitter:
                _close_up(axes[:, 1], each, size, _COLOURS[index])
    _label(axes, size)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for ending in ("png", "svg"):
        path = directory / f"fleet.{ending}"
        figure.savefig(path, dpi=110, metadata={"Date": None} if ending == "svg" else None)
        written.append(path)
    pyplot.close(figure)
    return written


def _lines(axes: Any, each: Outcome, size: Size, colour: str) -> None:
    begin, moments = each.record.complete_at + STEP, []
    while begin < size.seconds:
        seen = between(each.record, begin, begin + _COARSE)
        moments.append(Moment(begin, min(x.serving for x in seen), max(x.booting for x in seen)))
        begin += _COARSE
    _plot(axes, [moment.at / HOUR for moment in moments], moments, each, size, colour)


def _close_up(axes: Any, each: Outcome, size: Size, colour: str) -> None:
    moments = between(each.record, size.lifetime - 60, size.lifetime + 600)
    moments.append(replace(moments[-1], at=size.lifetime + 600))
    _plot(axes, [(moment.at - size.lifetime) / 60 for moment in moments], moments, each, size, colour)
    axes[0].set_xlim(-1, 10)
    axes[1].set_xlim(-1, 10)


def _plot(axes: Any, times: list[float], moments: list[Moment], each: Outcome, size: Size, colour: str) -> None:
    style = {"drawstyle": "steps-post", "color": colour, "linewidth": 1.4, "label": each.bound.name}
    axes[0].plot(times, [100 * moment.serving / (size.hosts * size.workers) for moment in moments], **style)
    axes[1].plot(times, [moment.booting for moment in moments], **style)


def _label(axes: Any, size: Size) -> None:
    hours = size.lifetime / HOUR
    titles = (
        f"max_lifetime {hours:g} h, no jitter",
        "the same, its first recycling",
        f"max_lifetime {hours:g} h, jitter {size.jitter / HOUR:g} h (mind the scale above)",
    )
    for column, title in enumerate(titles):
        axes[0][column].set_title(title, fontsize=10)
        axes[0][column].set_ylim((97.5, 100.2) if column == 2 else (-3, 105))
        axes[1][column].set_yscale("symlog", linthresh=1)
        axes[1][column].set_ylim(0, 2 * size.hosts * size.workers)
        axes[1][column].set_xlabel(
            f"minutes after {hours:g} h" if column == 1 else "hours after the deploy", fontsize=9
        )
        for row in axes[:, column]:
            row.spines[["top", "right"]].set_visible(False)
            row.grid(alpha=0.25)
    axes[0][0].set_ylabel(f"% of {size.hosts * size.workers:,} workers serving", fontsize=9)
    axes[1][0].set_ylabel("workers booting at the same time", fontsize=9)


if __name__ == "__main__":
    for _path in draw(*from_json(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2])):
        print(_path)
