"""The exposition is read by prometheus-client's parser and by OpenMetrics' own."""

from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from aserver.admin.exposition import name_of, render
from aserver.metrics.families import FAMILIES, labelled, of_words, single
from aserver.metrics.meter import Meter
from aserver.metrics.page import PAGE_SIZE, WORDS
from aserver.metrics.tally import of_counts
from aserver.metrics.totals import Totals

PATH = 'unix:/run/a \\ "b".sock'
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def reply() -> list[dict[str, Any]]:
    """What the control socket says, with a sample of each family."""
    meter = Meter()
    meter.accepted = 3
    meter.ended[2] += [-0.004, -0.02, -99.0]
    meter.end_turn(0.0)
    page = bytearray(PAGE_SIZE)
    meter.flush(memoryview(page)[: 8 * WORDS].cast("Q"), 0)
    totals = Totals()
    totals.look(1, bytes(page))
    families = [
        *of_words(totals.sums()),
        *of_counts({"restart/killed": 2}),
        labelled("aserver.listener.queue", "listener", {PATH: 1}),
    ]
    known = {each.name for each in families}
    families += [single(name, 1) for name in FAMILIES if name not in known]
    return msgspec.json.decode(msgspec.json.encode(families))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("accept", "parse"), [("", parse_prometheus), (OPENMETRICS, parse_openmetrics)])
def test_each_family_is_read_again(accept: str, parse: Any) -> None:
    """Fails with buckets that are not cumulative, a name that a parser refuses, or a label that is not escaped."""
    told = reply()
    body, kind = render(told, accept)
    assert ("openmetrics" in kind) == bool(accept)
    metrics = list(parse(body.decode()))
    assert {metric.name for metric in metrics} == {name_of(each) for each in told}
    samples = {(each.name, *each.labels.values()): each.value for metric in metrics for each in metric.samples}
    name = "http_server_request_duration_seconds"
    bounds = ("0.005", "0.01", "0.025", "10.0", "+Inf")
    buckets = {frozenset(labels): value for (each, *labels), value in samples.items() if each == f"{name}_bucket"}
    assert [buckets[frozenset(("2xx", bound))] for bound in bounds] == [1, 1, 2, 2, 3]
    assert samples[f"{name}_count", "2xx"] == 3
    assert samples[f"{name}_sum", "2xx"] == pytest.approx(99.024)
    assert samples["aserver_connections_accepted_total",] == 3
    assert samples["aserver_worker_restarts_total", "killed"] == 2
    assert samples["aserver_listener_queue", PATH] == 1
