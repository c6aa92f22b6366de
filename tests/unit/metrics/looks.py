"""Statuses and metrics as a master tells them."""

from typing import Any

from aserver.metrics.page import BOUNDS


def status(at: float, *workers: tuple[int, int]) -> dict[str, Any]:
    """`workers`: serial and requests so far."""
    rows: list[dict[str, Any]] = [
        {"serial": serial, "requests": requests, "active": 1, "loop_lag": serial / 100, "memory": 5}
        for serial, requests in workers
    ]
    return {"uptime": at, "workers_ready": len(workers), "workers": [*rows, {"serial": 99}]}


def metrics(at: float, **requests: list[int]) -> dict[str, Any]:
    """Requests so far by the class of their status, in the first buckets."""
    samples = [
        {"labels": {"status": name}, "buckets": buckets + [0] * (len(BOUNDS) + 1 - len(buckets))}
        for name, buckets in requests.items()
    ]
    durations = {"name": "http.server.request.duration", "bounds": list(BOUNDS), "samples": samples}
    return {"uptime": at, "metrics": [{"name": "other"}, durations]}
