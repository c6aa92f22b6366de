"""Metrics in statsd's lines, with or without Datadog's tags. Pure.

statsd adds up what it is told, so counters are told as what came since the last time. It knows no histogram: each
bucket is told as a timer at its middle, with a sample rate by which the server counts it as often as it occurred.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from aserver.metrics.families import Family, Sample

#: Bytes of a datagram: they fit into an Ethernet frame, also through a tunnel.
LARGEST = 1400


class Statsd:
    """The lines of one server. `prefix` and `tags` are gunicorn's `statsd_prefix` and `dogstatsd_tags`.

    `told` are the counts at the last time, by name; empty before the first time. They are kept up to date.
    """

    def __init__(self, prefix: str, tags: Sequence[str], told: dict[str, list[float]]) -> None:
        self._prefix = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
        self._tags = tags
        self._told = told

    def datagrams(self, families: Iterable[Family]) -> list[bytes]:
        """All that is to be sent now; the first time only begins the counting."""
        begun = bool(self._told)
        packets: list[bytes] = []
        for line in self._lines(families):
            data = line.encode("utf-8", "replace")
            if not packets or len(packets[-1]) + 1 + len(data) > LARGEST:
                packets.append(data)
            else:
                packets[-1] += b"\n" + data
        return packets if begun else []

    def _lines(self, families: Iterable[Family]) -> Iterator[str]:
        for family in families:
            for sample in family.samples:
                name, tags = self._name(family.name, sample.labels)
                if family.kind == "gauge":
                    yield f"{name}:{sample.value:.15g}|g{tags}"
                elif family.kind == "counter":
                    assert sample.value is not None
                    (new,) = self._since(name + tags, [sample.value])
                    if new:
                        yield f"{name}:{new:.15g}|c{tags}"
                else:
                    yield from self._timers(family.bounds, sample, name, tags)

    def _timers(self, bounds: Sequence[float], sample: Sample, name: str, tags: str) -> Iterator[str]:
        edges = [0.0, *bounds, bounds[-1]]
        new = self._since(name + tags, sample.buckets or ())
        for (low, high), count in zip(pairwise(edges), new, strict=True):
            if count:
                rate = f"|@{1 / count:.9g}" if count > 1 else ""
                yield f"{name}:{(low + high) * 500:g}|ms{rate}{tags}"

    def _since(self, key: str, now: Sequence[float]) -> list[float]:
        before = self._told.get(key, [0] * len(now))
        self._told[key] = list(now)
        return [max(0, new - old) for new, old in zip(now, before, strict=True)]

    def _name(self, family: str, labels: Mapping[str, str]) -> tuple[str, str]:
        """The name, and the tags behind a line. Without tags a label's value is the last part of the name."""
        name = self._prefix + family
        if self._tags:
            own = [f"{label}:{_clean(value)}" for label, value in labels.items()]
            return name, "|#" + ",".join([*self._tags, *own])
        return ".".join([name, *(_clean(value).replace(".", "_") for value in labels.values())]), ""


def _clean(text: str) -> str:
    """Without the characters that mean something in a line."""
    return text.translate(str.maketrans(":|@#,\n ", "_______"))
