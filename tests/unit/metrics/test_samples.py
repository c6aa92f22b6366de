"""Samples of a server from looks at its status and metrics."""

import pytest

from aserver.metrics.samples import MOST_SAMPLES, Samples, quantile
from tests.unit.metrics.looks import metrics, status


def test_a_sample_is_of_the_time_between_two_looks() -> None:
    """By class, and over all of them. Fails with counts since the start, or with the time of the status."""
    samples = Samples()
    samples.add(status(10.0, (1, 0)), metrics(7.0, ok=[1000], bad=[5]), 500.0)
    assert not samples.all, "one look is no rate"
    samples.add(status(13.0, (1, 0), (3, 0)), metrics(9.0, ok=[1030, 10], bad=[5, 0, 20]), 502.0)
    (sample,) = samples.all
    assert (sample["at"], sample["rate"], sample["classes"]) == (502.0, 30.0, {"ok": 20.0, "bad": 10.0})
    assert sample["p50"] == pytest.approx(0.005)
    assert sample["p99"] == pytest.approx(0.02455)
    assert (sample["active"], sample["lag"], sample["memory"]) == (2, 0.03, 10)


def test_samples_are_a_second_and_bounded() -> None:
    """Fails with a sample for each look, or without an end."""
    samples = Samples()
    for half in range(2 * MOST_SAMPLES + 200):
        samples.add(status(half / 2, (1, 0)), metrics(half / 2, ok=[half]), half / 2)
    assert len(samples.all) == MOST_SAMPLES
    assert samples.taken > MOST_SAMPLES
    assert samples.all[-1]["at"] - samples.all[-2]["at"] == 1.0
    assert {sample["rate"] for sample in samples.all} == {2.0}


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.5),
        ([0, 10, 0, 0], 0.9, 1.9),
        ([50, 0, 50, 0], 0.5, 1.0),
        ([50, 0, 50, 0], 0.99, 3.96),
        ([0, 0, 0, 7], 0.5, 4.0),
        ([99, 0, 0, 1], 0.999, 4.0),
    ],
)
def test_quantiles_are_prometheus(buckets: list[int], share: float, value: float | None) -> None:
    """https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile, by hand."""
    found = quantile((1.0, 2.0, 4.0), buckets, share)
    assert found is None if value is None else found == pytest.approx(value)
