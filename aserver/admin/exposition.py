"""Metrics in Prometheus' formats, made of the families that the control socket gives.

prometheus-client (the extra `admin`) makes the text, in the format that the scraper asks for: Prometheus' own or
OpenMetrics. It is imported when the first scraper comes.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

#: OpenTelemetry's units in Prometheus' words.
_UNITS = {"s": "seconds", "By": "bytes", "d": "days"}


class _Families:
    """A collector (prometheus_client.registry) of families that are here already."""

    def __init__(self, families: Iterable[Mapping[str, Any]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        """A metric for each family."""
        for family in self._families:
            yield _metric(family)


def name_of(family: Mapping[str, Any]) -> str:
    """`http.server.request.duration`, in `s` -> `http_server_request_duration_seconds`."""
    name, unit = family["name"].replace(".", "_"), _UNITS.get(family["unit"], "")
    return f"{name}_{unit}" if unit and not name.endswith(unit) else name


def _metric(family: Mapping[str, Any]) -> Any:
    from prometheus_client import core  # noqa: PLC0415

    samples = family["samples"]
    labels = list(samples[0].get("labels", {})) if samples else []
    kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}
    if family["kind"] == "histogram":
        histogram = core.HistogramMetricFamily(name_of(family), family["help"], labels=labels)
        bounds = [*map(str, family["bounds"]), "+Inf"]
        for sample in samples:
            buckets = list(zip(bounds, accumulate(sample["buckets"]), strict=True))
            histogram.add_metric(list(sample.get("labels", {}).values()), buckets, sum_value=sample["sum"])
        return histogram
    metric = kinds[family["kind"]](name_of(family), family["help"], labels=labels)
    for sample in samples:
        metric.add_metric(list(sample.get("labels", {}).values()), sample["value"])
    return metric


def render(families: Iterable[Mapping[str, Any]], accept: str) -> tuple[bytes, str]:
    """(body, content type) for a scraper that sent this Accept field. Raises ImportError without prometheus-client."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    registry = CollectorRegistry()
    registry.register(_Families(families))
    encode, kind = choose_encoder(accept)
    return encode(registry), kind
