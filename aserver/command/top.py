"""`aserver top`: the status of a running server, live. Needs rich (`pip install aserver-asgi[top]`).

Runs in the operator's process. It asks once a second, and sends the orders of its keys by the same connection.
"""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aserver.command import looks, status_view
from aserver.command.instances import UPGRADE_PATIENCE, Line, Refused, Unreachable
from aserver.metrics.samples import Samples

#: Seconds between two looks.
PERIOD = 1.0
#: Looks that a sparkline shows.
WIDTH = 60
_BARS = "▁▂▃▄▅▆▇█"
KEYS = "j k choose a worker   s its stacks   e its requests   x recycle it   r reload   q quit"
_PHASES = {"ready": "green", "booting": "cyan", "recycling": "yellow", "draining": "yellow"}


class History:
    """The last looks: `total` has the server's requests per second, `of` each worker's by its serial.

    `samples` has the durations of requests.
    """

    def __init__(self) -> None:
        self.samples = Samples()
        self.total: deque[float] = deque(maxlen=WIDTH)
        self.of: dict[int, float] = {}
        self._before: dict[int, int] = {}
        self._at: float | None = None

    def add(self, status: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Compare with the look before. A worker that is new counts from 0, one that has gone counts no more."""
        self.samples.add(status, metrics, status["uptime"])
        now = {worker["serial"]: worker.get("requests", 0) for worker in status["workers"]}
        if self._at is not None and status["uptime"] > self._at:
            passed = status["uptime"] - self._at
            self.of = {serial: max(0, count - self._before.get(serial, 0)) / passed for serial, count in now.items()}
            self.total.append(sum(self.of.values()))
        self._before, self._at = now, status["uptime"]


def sparkline(values: "deque[float]") -> str:
    """A bar for each value; the largest is as high as the row."""
    top = max(values, default=0.0) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))] for value in values)


def page(status: Mapping[str, Any], history: History, chosen: int, below: str) -> RenderableType:
    """The screen; `chosen` is the place of a worker in the list, `below` what was asked for last."""
    *head, _blank = list(status_view.head(status))
    rate = history.total[-1] if history.total else 0.0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("slot", "pid", "gen", "phase", "age", "req/s", *status_view.COLUMNS[5:]):
        table.add_column(column, no_wrap=True)
    for place, worker in enumerate(status["workers"]):
        row = list(status_view.row(worker))
        row.insert(5, f"{history.of.get(worker['serial'], 0.0):.0f}")
        phase = Text(row[3], style=_PHASES.get(worker["phase"], "red"))
        table.add_row(*row[:3], phase, *row[4:], style="reverse" if place == chosen else "")
    lines = [Text(line, no_wrap=True) for line in head]
    rows = [("requests/s", f"{rate:.0f}", history.total)]
    for name in ("p50", "p99"):
        values = [sample[name] for sample in history.samples.all][-WIDTH:]
        last = values[-1] if values else None
        rows.append((name, "-" if last is None else f"{last * 1000:.3g} ms", deque(value or 0.0 for value in values)))
    lines += [Text(f"  {name:<13} {last:<8} {sparkline(values)}", no_wrap=True) for name, last, values in rows]
    return Group(*lines, Text(), table, Text(), Text(below), Text(KEYS, style="dim"))


def top(path: str, console: Console) -> None:
    """Show until `q` or Ctrl-C. Raises Unreachable if the server does not answer for longer than an upgrade takes."""
    history, chosen, below = History(), 0, ""
    line = Line(path)
    with _keys() as wait, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                metrics, status = line.ask("metrics"), line.ask("status")["status"]
            except Unreachable:
                line.close()
                line = again(path)
                continue
            history.add(status, metrics)
            workers = status["workers"]
            chosen = min(chosen, max(0, len(workers) - 1))
            live.update(page(status, history, chosen, below), refresh=True)
            key = wait(PERIOD)
            if key == "q":
                return
            if key in ("j", "k"):
                chosen = max(0, chosen + (1 if key == "j" else -1))
            elif key:
                below = obey(line, key, workers[chosen]["slot"] if workers else 0)


def again(path: str) -> Line:
    """Another connection to a master that is just re-executing itself."""
    deadline = time.monotonic() + UPGRADE_PATIENCE
    while True:
        try:
            return Line(path)
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            select.select([], [], [], 0.1)


def obey(line: Line, key: str, slot: int) -> str:
    """Send the order of a key; returns the text to show."""
    orders = {"r": ("reload", {}), "x": ("recycle", {"slot": slot}), "s": ("stacks", {"slot": slot})}
    orders["e"] = ("requests", {"slot": slot})
    if key not in orders:
        return ""
    command, more = orders[key]
    try:
        reply = line.ask(command, **more)
    except Refused as error:
        return str(error)
    if "workers" not in reply:
        return f"{command}: ordered"
    show = looks.stacks if command == "stacks" else looks.requests
    return "\n".join(text for worker in reply["workers"] for text in show(worker))


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Yield a function that waits some seconds for a key, and returns the key, or an empty text without one."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def wait(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], seconds)
        return os.read(terminal, 1).decode("latin-1") if ready else ""

    try:
        tty.setcbreak(terminal)
        yield wait
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
