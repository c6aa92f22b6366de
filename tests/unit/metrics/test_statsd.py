"""Lines for statsd and for Datadog's agent: what came since the last time, in datagrams that fit."""

import pytest

from aserver.config import Layer, build
from aserver.metrics.families import Family, Sample, family, labelled, single
from aserver.metrics.statsd import LARGEST, Statsd


def families(count: int, *buckets: int) -> list[Family]:
    durations = Sample({"status": "2xx"}, count=sum(buckets), sum=1.0, buckets=[*buckets, *[0] * (15 - len(buckets))])
    return [
        single("aserver.connections.accepted", count),
        labelled("aserver.listener.queue", "listener", {"http://[::1]:80": 2}),
        family("http.server.request.duration", [durations]),
    ]


def told(prefix: str, *tags: str) -> list[str]:
    statsd = Statsd(prefix, tags, {})
    assert statsd.datagrams(families(5, 1)) == []
    (datagram,) = statsd.datagrams(families(7, 2, 4, 0))
    return datagram.decode().splitlines()


def test_counters_tell_what_came_and_buckets_how_often() -> None:
    """Fails with absolute counts, which a server would add up, and without the rate."""
    assert told("shop") == [
        "shop.aserver.connections.accepted:2|c",
        "shop.aserver.listener.queue.http_//[__1]_80:2|g",
        "shop.http.server.request.duration.2xx:2.5|ms",
        "shop.http.server.request.duration.2xx:7.5|ms|@0.25",
    ]


def test_labels_are_tags_for_datadog() -> None:
    assert told("", "env:prod")[1:3] == [
        "aserver.listener.queue:2|g|#env:prod,listener:http_//[__1]_80",
        "http.server.request.duration:2.5|ms|#env:prod,status:2xx",
    ]


def test_counts_go_on_where_the_image_before_an_upgrade_stopped() -> None:
    """Fails without `told`: what came between the last push and the upgrade would be lost."""
    told: dict[str, list[float]] = {}
    Statsd("shop", (), told).datagrams(families(5, 1))
    (datagram,) = Statsd("shop", (), told).datagrams(families(7, 2, 4, 0))
    assert datagram.decode().splitlines()[0] == "shop.aserver.connections.accepted:2|c"


def test_datagrams_fit_into_a_frame() -> None:
    """Fails with one datagram for all: the network would drop it."""
    statsd = Statsd("p" * 100, (), {})
    many = [labelled("aserver.workers", "phase", {f"phase{number}": number for number in range(100)})]
    statsd.datagrams([*many, *families(1)])
    datagrams = statsd.datagrams(many)
    assert all(len(each) <= LARGEST for each in datagrams)
    assert sum(each.count(b"\n") + 1 for each in datagrams) == 100


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1", "10.0.0.1:8125", "[::1]:8125", "unix:/run/statsd.sock"])
def test_addresses(text: str) -> None:
    found = build([Layer("test", {"target": "x:y", "statsd_host": text})]).config.statsd_host
    assert found == (text if ":" in text else f"{text}:8125")
