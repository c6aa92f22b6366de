"""Samples of a server from looks at its status."""

from aserver.admin.samples import MOST_SAMPLES, Samples
from tests.unit.admin.looks import status


def test_a_rate_is_of_the_workers_that_are_there() -> None:
    """A new worker counts from 0, and one that has gone takes nothing away. Fails with sums compared."""
    samples = Samples()
    samples.add(status(10.0, (1, 1000), (2, 500)))
    assert not samples.all, "one look is no rate"
    samples.add(status(12.0, (2, 540), (3, 20)))
    (sample,) = samples.all
    assert sample == {
        "at": 12.0, "rate": 30.0, "active": 2, "connections": 4, "lag": 0.03, "memory": 10, "cpu": 1.0, "ready": 2,
    }  # fmt: skip


def test_samples_are_a_second_and_bounded() -> None:
    """Fails with a sample for each look, or without an end."""
    samples = Samples()
    for half in range(2 * MOST_SAMPLES + 200):
        samples.add(status(half / 2, (1, half)))
    assert len(samples.all) == MOST_SAMPLES
    ats = [sample["at"] for sample in samples.all]
    assert ats[-1] - ats[-2] == 1.0
    assert {sample["rate"] for sample in samples.all} == {2.0}
