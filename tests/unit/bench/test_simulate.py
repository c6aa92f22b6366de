"""The simulator: on a small fleet, the master's promises can be read off, and what each knob does."""

import json
from functools import cache
from pathlib import Path

import pytest

from bench.fleet import Moment, Record, between
from bench.simulate import BOUNDS, Bound, Outcome, Size, draw, from_json, simulate, table, to_json

SIZE = Size(hosts=8, workers=4, seconds=25_000, lifetime=10_000, jitter=2_000, boot=20.0, seed=3)
WANTED = SIZE.hosts * SIZE.workers
SURGE, UNAVAILABLE, UNBOUND = BOUNDS


@cache
def run(bound: Bound, jitter: float) -> Outcome:
    return simulate(SIZE, bound, jitter)


@pytest.mark.parametrize("jitter", [0.0, SIZE.jitter])
def test_with_surge_capacity_never_falls(jitter: float) -> None:
    """Fails with the drain before the replacement's READY in reconcile._replace_outgoing."""
    record = run(SURGE, jitter).record
    assert record.fewest == WANTED
    assert record.fewest_on_a_host == SIZE.workers
    assert record.missing == 0.0
    assert record.most_processes == SIZE.workers + 1
    assert record.boots == 3 * WANTED, "everybody was recycled twice, or this says nothing"


@pytest.mark.parametrize("jitter", [0.0, SIZE.jitter])
def test_without_surge_each_host_misses_one_at_most(jitter: float) -> None:
    """Fails with can_lose_one that compares with `target - max_unavailable - 1`."""
    record = run(UNAVAILABLE, jitter).record
    assert WANTED - SIZE.hosts <= record.fewest < WANTED
    assert record.fewest_on_a_host == SIZE.workers - 1
    assert record.most_processes == SIZE.workers
    assert record.boots == 3 * WANTED
    assert record.missing > 2 * WANTED * SIZE.boot / 2, "two boots of each were missed"


def test_without_jitter_and_bound_nobody_is_left() -> None:
    record = run(UNBOUND, 0.0).record
    assert record.fewest == 0
    assert record.most_booting == WANTED


@pytest.mark.parametrize("bound", BOUNDS)
def test_jitter_spreads_the_boots(bound: Bound) -> None:
    """Fails with draw_lifetime that adds `rng() * 0`."""
    in_step, spread = run(bound, 0.0), run(bound, SIZE.jitter)
    assert len(in_step.waves) == len(spread.waves) == 2
    assert in_step.waves[0].end - in_step.waves[0].begin < 500
    assert SIZE.jitter / 2 < spread.waves[0].end - spread.waves[0].begin < SIZE.jitter + 500
    assert spread.waves[1].end - spread.waves[1].begin > 1.2 * (spread.waves[0].end - spread.waves[0].begin)
    assert spread.waves[0].most < in_step.waves[0].most
    assert spread.waves[0].begin >= SIZE.lifetime - 10, "jitter only adds"


def test_the_seed_repeats() -> None:
    assert run(SURGE, SIZE.jitter) == simulate(SIZE, SURGE, SIZE.jitter)


def test_json_gives_the_same_table(tmp_path: Path) -> None:
    outcomes = [run(bound, jitter) for jitter in (0.0, SIZE.jitter) for bound in BOUNDS]
    again = from_json(json.loads(json.dumps(to_json(SIZE, outcomes))))
    assert again == (SIZE, outcomes)
    text = table(*again)
    assert len(text.splitlines()) == 2 + 6
    assert "| no bound | none | 0 (0.0%) | 0 of 4 |" in text


def test_what_was_so_at_the_beginning_belongs_to_it() -> None:
    record = Record(10.0, [Moment(0, 1, 1), Moment(50, 2, 2), Moment(90, 3, 3)])
    assert [moment.serving for moment in between(record, 40, 90)] == [1, 2]
    assert [moment.serving for moment in between(record, 50, 91)] == [2, 3]
    assert [moment.serving for moment in between(record, 95, 99)] == [3]


def test_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcomes = [run(bound, jitter) for jitter in (0.0, SIZE.jitter) for bound in BOUNDS]
    for path in draw(SIZE, outcomes, tmp_path):
        assert path.stat().st_size > 10_000
