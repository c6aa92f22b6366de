"""The benches' arithmetic: spreads, ratios pair by pair, the order of rounds, the tables."""

from typing import Any

import pytest

from bench import figures, report
from bench.figures import Sample, Spread
from bench.report import MARK, Report, ScenarioReport

COLUMNS: list[dict[str, Any]] = [
    {"key": "cpu_us", "title": "CPU", "digits": 1, "compare": True},
    {"key": "rps", "title": "requests/s", "digits": 0, "compare": True},
]
ROLES = {"limit": "limit", "aserver": "subject", "slow": "peer", "quick": "peer"}


def sample(server: str, number: int, cpu: float, **more: Any) -> Sample:
    return Sample("hello", server, number, {"cpu_us": cpu, "rps": 1e6 / cpu}, **more)


def hello(*samples: Sample) -> ScenarioReport:
    return ScenarioReport("hello", "Hello", COLUMNS, samples=list(samples))


def test_a_spread_is_the_median_with_its_extremes() -> None:
    assert figures.spread([3.0, 1.0, 9.0]) == Spread(3.0, 1.0, 9.0, 3)


def test_nothing_has_no_spread() -> None:
    assert figures.spread([]) is None


def test_ratios_are_made_within_a_round_so_that_a_slow_phase_of_the_machine_cancels() -> None:
    # In round 1 the machine was three times slower; the ratio of the medians would still be 2, but with other
    # rounds missing it would not: round 2 has no "quick", round 3 no "aserver".
    samples = [sample("aserver", 0, 20), sample("quick", 0, 10), sample("aserver", 1, 60), sample("quick", 1, 30)]
    samples += [sample("aserver", 2, 500), sample("quick", 3, 1)]
    assert figures.ratios(samples, "aserver", "quick", "cpu_us") == [2.0, 2.0]


def test_a_round_in_which_the_other_is_zero_has_no_ratio() -> None:
    assert figures.ratios([sample("a", 0, 5), Sample("hello", "b", 0, {"cpu_us": 0.0})], "a", "b", "cpu_us") == []


def test_the_best_peer_is_the_one_with_the_lowest_median_not_the_lowest_value() -> None:
    samples = [sample("quick", n, cpu) for n, cpu in enumerate((10, 11, 12))]
    samples += [sample("slow", n, cpu) for n, cpu in enumerate((1, 20, 21))]
    assert figures.best(samples, ["slow", "quick"], "cpu_us") == "quick"


def test_a_peer_with_errors_is_not_the_best_one() -> None:
    samples = [sample("quick", 0, 10, errors={"read": 4}), sample("slow", 0, 20)]
    assert figures.best(samples, ["slow", "quick"], "cpu_us") == "slow"


def test_without_measurements_there_is_no_best_peer() -> None:
    assert figures.best([], ["slow"], "cpu_us") is None


def test_errors_add_up_over_rounds_and_count_what_was_not_measured() -> None:
    samples = [sample("slow", 0, 1, errors={"read": 1}), sample("slow", 1, 1, errors={"read": 2, "timeout": 1})]
    samples.append(Sample("hello", "slow", 2, failure="it did not start"))
    assert figures.errors(samples, "slow") == {"read": 3, "timeout": 1, "not measured": 1}


@pytest.mark.parametrize("number", range(6))
def test_every_round_measures_each_server_once(number: int) -> None:
    assert sorted(figures.rotate(["a", "b", "c"], number)) == ["a", "b", "c"]


def test_rounds_begin_with_different_servers_and_change_the_neighbours() -> None:
    rounds = [figures.rotate(["a", "b", "c", "d"], number) for number in range(4)]
    assert len({order[0] for order in rounds}) > 1
    before_b = {order[order.index("b") - 1] for order in rounds if order[0] != "b"}
    assert len(before_b) > 1


def test_the_table_divides_by_the_limit_and_the_best_peer_and_ranks_by_the_main_figure() -> None:
    samples = [
        sample(name, n, cpu)
        for name, cpu in (("slow", 40), ("aserver", 18), ("limit", 10), ("quick", 20))
        for n in (0, 1)
    ]
    lines = report.table(hello(*samples), ROLES)
    titles = [cell.strip() for cell in lines[0].strip("|").split("|")]
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]}
    assert list(rows) == ["limit", "aserver", "quick", "slow"]
    aserver = dict(zip(titles, rows["aserver"], strict=True))
    assert aserver["÷ limit"] == "1.80 (1.80-1.80)"
    assert aserver["÷ quick (best peer)"] == "0.90 (0.90-0.90)"
    assert dict(zip(titles, rows["slow"], strict=True))["aserver ÷ it"] == "0.45 (0.45-0.45)"


def test_a_row_with_errors_is_marked_and_a_server_without_figures_keeps_its_row() -> None:
    failed = Sample("hello", "slow", 0, failure="StartError: it did not start")
    text = report.markdown(_report(hello(sample("quick", 0, 20, errors={"read": 3}), failed)))
    assert f"{MARK} read 3" in text
    assert f"{MARK} slow: StartError: it did not start" in text
    assert "| slow | - |" in text


def test_counts_that_may_be_zero_are_not_divided() -> None:
    columns = [{"key": "failed", "title": "failed", "digits": 0, "compare": False}]
    samples = [Sample("recycle", name, 0, {"failed": count}) for name, count in (("aserver", 0.0), ("slow", 7.0))]
    lines = report.table(ScenarioReport("recycle", "Recycle", columns, samples=samples), ROLES)
    assert lines[0] == "| server | failed | errors |"


def test_a_skipped_scenario_says_why() -> None:
    skipped = ScenarioReport("hello", "Hello", COLUMNS, skipped="wrk is not installed")
    assert f"{MARK} not measured: wrk is not installed" in report.markdown(_report(skipped))


def test_a_report_survives_json() -> None:
    before = _report(hello(sample("quick", 0, 20, errors={"read": 3}, notes=["n"])))
    after = Report.from_json(before.to_json())
    assert after == before
    assert report.markdown(after) == report.markdown(before)


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format is 2"):
        Report.from_json({"format": 2})


def _report(scenario: ScenarioReport) -> Report:
    return Report("2026-01-01 00:00", {"cpus": "2"}, {"rounds": 1}, {"quick": "1.0"}, ROLES, [scenario])
