"""The screen of aserver top, made from replies to `status`."""

import io
from collections import deque
from typing import Any

import pytest
from rich.console import Console

from aserver.command import top
from aserver.command.instances import Line, Refused
from tests.unit.metrics.looks import metrics

WORKER = {
    "slot": 1, "serial": 4, "pid": 99, "generation": 2, "phase": "ready", "waits_for": "", "age": 61.0, "requests": 10,
    "active": 1, "connections": 2, "websockets": 0, "loop_lag": 0.002, "memory": 50 << 20, "cpu": 0.25,
    "next_recycle": [{"why": "max_requests", "left": 90}],
}  # fmt: skip
STATUS = {
    "version": "1", "pid": 98, "target": "app:app", "phase": "serving", "waits_for": "", "uptime": 100.0,
    "generation": 2, "workers_wanted": 2, "workers_ready": 1, "last_reload": None, "last_death": None, "under_way": [],
    "certificates": [], "listeners": [{"name": "http://127.0.0.1:1", "queue": 3, "backlog": 9}], "workers": [WORKER],
}  # fmt: skip


def test_requests_per_second_survive_recycling() -> None:
    """A worker that has gone takes nothing with it. Fails with a difference of sums: it would be negative."""
    history = top.History()
    history.add(STATUS, metrics(100.0, ok=[0]))
    assert not history.total
    history.add(STATUS | {"uptime": 102.0, "workers": [WORKER | {"requests": 30}]}, metrics(102.0, ok=[0]))
    assert list(history.total) == [10.0]
    history.add(STATUS | {"uptime": 103.0, "workers": [WORKER | {"serial": 5, "requests": 7}]}, metrics(103.0, ok=[0]))
    assert list(history.total) == [10.0, 7.0]


def test_the_page() -> None:
    """Fails without the rate among the columns, and with a row that has another number of fields than the head."""
    history = top.History()
    history.add(STATUS, metrics(100.0, ok=[0]))
    history.add(STATUS | {"uptime": 101.0, "workers": [WORKER | {"requests": 22}]}, metrics(101.0, ok=[0, 10]))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(top.page(STATUS, history, 0, "what was asked for"))
    text = console.export_text()
    for part in (
        "app:app",
        "1 of 2 serve",
        "3 of 9 wait",
        "12       █",
        "p50           7.5 ms   █",
        "p99           9.95 ms  █",
        "1 min 1 s",
        "50 MiB",
        "25%",
        "after 90 requests",
    ):
        assert part in text, part
    assert "what was asked for" in text


def test_a_sparkline() -> None:
    """Fails with a row of zeros that divides by it."""
    assert top.sparkline(deque([0.0, 0.0])) == "▁▁"
    assert top.sparkline(deque([1.0, 8.0, 4.0])) == "▂█▅"


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with a refusal that ends the program, or a key that is no order."""
    asked: list[tuple[str, dict[str, Any]]] = []

    class Fake(Line):
        def __init__(self) -> None:
            pass

        def ask(self, command: str, **more: Any) -> dict[str, Any]:
            asked.append((command, more))
            if command == "recycle":
                raise Refused("not now")
            return {"after": 1, "ticket": 2}

    assert top.obey(Fake(), "r", 3) == "reload: ordered"
    assert top.obey(Fake(), "x", 3) == "not now"
    assert top.obey(Fake(), "z", 3) == ""
    assert asked == [("reload", {}), ("recycle", {"slot": 3})]
