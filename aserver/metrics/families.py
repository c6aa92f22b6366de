"""Families of samples, as the control socket's reply to `metrics` has them. Pure.

Names, units and buckets are OpenTelemetry's where it has any; `admin/exposition` makes Prometheus' names of them. No
label is a path: its values would have no bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from aserver.metrics.page import BOUNDS, BUCKETS, ROW_WORDS, SUM, Counter, Histogram

Kind = Literal["counter", "gauge", "histogram"]


class Sample(msgspec.Struct, omit_defaults=True, frozen=True):
    """A value; or, of a histogram, how many values there were, their sum, and how many fell into each bucket."""

    labels: dict[str, str] = {}
    value: float | None = None
    count: int | None = None
    sum: float | None = None
    buckets: list[int] | None = None


class Family(msgspec.Struct, omit_defaults=True, frozen=True):
    """Samples of a name. `bounds` are the upper bounds of the buckets, less the last, which has none."""

    name: str
    kind: Kind
    unit: str  # "s", "By", "d" (days) or none
    help: str
    samples: list[Sample]
    bounds: tuple[float, ...] = ()


#: Kind, unit and help of each family.
FAMILIES: Mapping[str, tuple[Kind, str, str]] = {
    "http.server.request.duration": ("histogram", "s", "Requests by the class of their status, and their durations."),
    "http.server.active_requests": ("gauge", "", "Requests whose application runs."),
    "aserver.request.queue": ("histogram", "s", "From X-Request-Start, as a trusted proxy sets it, to the worker."),
    "aserver.connections": ("gauge", "", "Open connections."),
    "aserver.connections.accepted": ("counter", "", "Connections that were accepted."),
    "aserver.websockets": ("gauge", "", "Connections that are WebSockets."),
    "aserver.websockets.ended": ("counter", "", "WebSockets that have ended."),
    "aserver.received": ("counter", "By", "Bytes of request bodies and of messages from WebSockets."),
    "aserver.sent": ("counter", "By", "Bytes of response bodies and of messages to WebSockets."),
    "aserver.loop.lag": ("histogram", "s", "How late the heartbeats of the workers' event loops were."),
    "aserver.workers": ("gauge", "", "Processes of workers by their phase."),
    "aserver.workers.wanted": ("gauge", "", "The number of workers that the server is to have."),
    "aserver.worker.memory": ("gauge", "By", "Memory that a worker shares with no other process."),
    "aserver.worker.restarts": ("counter", "", "Workers that were recycled or died, by the reason."),
    "aserver.worker.boot_failures": ("counter", "", "Workers that could not boot, but for those that ended a reload."),
    "aserver.reloads": ("counter", "", "Reloads and upgrades by their outcome."),
    "aserver.last_reload.successful": ("gauge", "", "Whether the last reload or upgrade is complete."),
    "aserver.last_reload.time": ("gauge", "s", "When the last reload or upgrade ended, in Unix time."),
    "aserver.generation": ("gauge", "", "The generation that new workers come from."),
    "aserver.start.time": ("gauge", "s", "When the server was started, in Unix time."),
    "aserver.listener.queue": ("gauge", "", "Clients that wait to be accepted."),
    "aserver.listener.backlog": ("gauge", "", "Clients that may wait to be accepted."),
    "aserver.log.dropped": ("counter", "", "Log records that were lost because their target did not take them."),
    "aserver.certificate.days": ("gauge", "d", "Days until a certificate ends."),
}

_CLASSES = {
    Histogram.OTHER: "other",
    Histogram.INFORMATIONAL: "1xx",
    Histogram.SUCCESS: "2xx",
    Histogram.REDIRECTION: "3xx",
    Histogram.CLIENT_ERROR: "4xx",
    Histogram.SERVER_ERROR: "5xx",
}


def family(name: str, samples: Iterable[Sample]) -> Family:
    """The family of that name."""
    kind, unit, text = FAMILIES[name]
    return Family(name, kind, unit, text, list(samples), BOUNDS if kind == "histogram" else ())


def single(name: str, value: float) -> Family:
    """A family of a single sample without labels."""
    return family(name, [Sample(value=value)])


def labelled(name: str, label: str, values: Mapping[str, float]) -> Family:
    """A family with a sample for each value of a label."""
    return family(name, [Sample({label: key}, value=value) for key, value in values.items()])


def of_words(words: Sequence[int]) -> list[Family]:
    """The families that the workers count, out of `Totals.sums`."""
    rows = {row: words[row * ROW_WORDS : (row + 1) * ROW_WORDS] for row in Histogram}
    return [
        family("http.server.request.duration", [_histogram(rows[row], {"status": _CLASSES[row]}) for row in _CLASSES]),
        family("aserver.request.queue", [_histogram(rows[Histogram.QUEUE], {})]),
        single("aserver.connections.accepted", words[Counter.CONNECTIONS]),
        single("aserver.websockets.ended", sum(rows[Histogram.WEBSOCKET][:BUCKETS])),
        single("aserver.received", words[Counter.RECEIVED]),
        single("aserver.sent", words[Counter.SENT]),
        family("aserver.loop.lag", [_histogram(rows[Histogram.LAG], {})]),
    ]


def _histogram(row: Sequence[int], labels: dict[str, str]) -> Sample:
    buckets = list(row[:BUCKETS])
    return Sample(labels, count=sum(buckets), sum=row[SUM] / 1e9, buckets=buckets)
