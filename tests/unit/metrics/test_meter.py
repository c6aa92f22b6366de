"""From a worker's lists over its page into the families of the reply."""

from aserver.metrics.families import Family, Sample, of_words
from aserver.metrics.meter import Meter
from aserver.metrics.page import BOUNDS, PAGE_SIZE, WORDS
from aserver.metrics.totals import Totals


def told(meter: Meter) -> dict[str, Family]:
    page = bytearray(PAGE_SIZE)
    meter.flush(memoryview(page)[: 8 * WORDS].cast("Q"), 7)
    totals = Totals()
    totals.look(1, bytes(page))
    return {family.name: family for family in of_words(totals.sums())}


def durations(meter: Meter) -> dict[str, Sample]:
    return {each.labels["status"]: each for each in told(meter)["http.server.request.duration"].samples}


def test_durations_go_into_buckets_whose_bounds_belong_to_them() -> None:
    """As `le` says. Fails with `bisect` on the other side, and if all are taken for the first bucket's."""
    meter = Meter()
    meter.ended[2] += [-0.005, -0.0051, -10.5]
    meter.ended[5] += [-0.002]
    meter.end_turn(0.0)
    found = durations(meter)
    assert found["2xx"].buckets == [1, 1, *[0] * (len(BOUNDS) - 2), 1]
    assert found["2xx"].sum is not None
    assert abs(found["2xx"].sum - 10.5101) < 1e-6
    assert (found["2xx"].count, found["5xx"].count, found["4xx"].count) == (3, 1, 0)


def test_what_was_told_stays_with_what_comes() -> None:
    """Fails if a flush forgets, or counts twice."""
    meter = Meter()
    for expected in (1, 2):
        meter.ended[2].append(1.0)
        meter.end_turn(1.001)
        assert durations(meter)["2xx"].count == expected


def test_every_status_and_close_code_has_its_row() -> None:
    """Fails with a shorter table: a status of 999 would cost the connection."""
    meter = Meter()
    for code in (0, 101, 204, 301, 404, 503, 600, 999, 1000, 4999):
        meter.ended[code // 100].append(1.0)
    meter.end_turn(1.0)
    counts = {label: sample.count for label, sample in durations(meter).items()}
    assert counts == {"other": 3, "1xx": 1, "2xx": 1, "3xx": 1, "4xx": 1, "5xx": 1}
    assert told(meter)["aserver.websockets.ended"].samples[0].value == 2
