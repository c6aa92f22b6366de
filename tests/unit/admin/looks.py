"""Statuses as a master tells them."""

from typing import Any


def status(at: float, *workers: tuple[int, int]) -> dict[str, Any]:
    """`workers`: serial and requests so far."""
    rows: list[dict[str, Any]] = [
        {
            "serial": serial,
            "requests": requests,
            "active": 1,
            "connections": 2,
            "loop_lag": serial / 100,
            "memory": 5,
            "cpu": 0.5,
        }
        for serial, requests in workers
    ]
    return {"uptime": at, "workers_ready": len(workers), "workers": [*rows, {"serial": 99}]}
