"""The status as lines. Each docstring says how it was seen to fail."""

from typing import Any

import pytest

from aserver.command.status_view import recycle, row, show, size, span, table

WORKER: dict[str, Any] = {
    "slot": 1, "pid": 99, "generation": 2, "phase": "ready", "waits_for": "", "age": 61.0, "requests": 10, "active": 1,
    "connections": 2, "websockets": 0, "loop_lag": 0.002, "memory": 50 << 20, "cpu": 0.25, "next_recycle": [],
}  # fmt: skip
BOOTING = {"slot": 2, "pid": None, "generation": 2, "phase": "booting", "waits_for": "its zygote", "age": 3.0}
STATUS: dict[str, Any] = {
    "version": "1", "pid": 98, "target": "app:app", "phase": "serving", "waits_for": "", "uptime": 100.0,
    "generation": 2, "workers_wanted": 2, "workers_ready": 1, "last_reload": None,
    "last_death": {"time": "2026-01-02T03:04:05.678+00:00", "message": "worker 1 died"},
    "under_way": [{"kind": "reload", "seconds": 4.0}],
    "certificates": [{"file": "a.pem", "days": 89.6}, {"file": "b.pem", "days": None}],
    "listeners": [
        {"name": "http://127.0.0.1:1", "queue": 3, "backlog": 9}, {"name": "unix:/a", "queue": None, "backlog": 9},
    ],
    "workers": [WORKER, BOOTING],
}  # fmt: skip


def test_the_whole_page() -> None:
    """Fails without any of its lines, or with numbers for a worker that has none yet."""
    assert list(show(STATUS)) == [
        "app:app  aserver 1, pid 98, up 1 min 40 s: serving",
        "  workers       1 of 2 serve, generation 2",
        "  under way     reload for 4.0 s",
        "  last reload   none",
        "  last death    2026-01-02 03:04:05 UTC, worker 1 died",
        "  listener      http://127.0.0.1:1, 3 of 9 wait",
        "  listener      unix:/a",
        "  certificate   a.pem ends in 90 days",
        "  certificate   b.pem cannot be read",
        "",
        "slot  pid  gen  phase    age        requests  in flight  conns  ws  lag   memory  cpu  next recycle",
        "1     99   2    ready    1 min 1 s  10        1          2      0   2 ms  50 MiB  25%  never",
        "2     -    2    booting  3.0 s      -         -          -      -   -     -       -    -",
        "worker 2 (pid -) waits for its zygote",
    ]
    waiting = STATUS | {"phase": "stopping", "waits_for": "worker 1", "generation": 0}
    first, second, *_ = show(waiting)
    assert first.endswith(": stopping, waits for worker 1")
    assert second.endswith("generation -")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (9.96, "10.0 s"), (10.4, "10 s"), (59.9, "60 s"), (61, "1 min 1 s"), (3599, "59 min 59 s"),
        (3661, "1 h 1 min"), (90000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_a_time_in_its_two_largest_units(seconds: float, text: str) -> None:
    """Fails with minutes of days, or tenths of a long time."""
    assert span(seconds) == text


def test_sizes_and_limits() -> None:
    """Fails with a limit of a newer server that this command does not know."""
    assert [size(count) for count in (0, 3 << 20, 3 << 29)] == ["0 MiB", "3 MiB", "1.5 GiB"]
    limits = [("max_requests", 5), ("max_lifetime", 120), ("max_memory", 1 << 20), ("asked", 0)]
    assert recycle([{"why": why, "left": left} for why, left in limits]) == (
        "after 5 requests, in 2 min 0 s, 1 MiB from max_memory, asked"
    )


def test_columns() -> None:
    """Fails with spaces at the ends of lines, which a narrow terminal wraps."""
    assert list(table([("a", "b"), ("long", "")])) == ["a     b", "long"]
    assert row(BOOTING)[4:7] == ("3.0 s", "-", "-")
