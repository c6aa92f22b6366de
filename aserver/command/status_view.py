"""The status of a server as text for people. Pure: the master's reply in, lines out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COLUMNS = (
    "slot",
    "pid",
    "gen",
    "phase",
    "age",
    "requests",
    "in flight",
    "conns",
    "ws",
    "lag",
    "memory",
    "cpu",
    "next recycle",
)


def show(status: Mapping[str, Any]) -> Iterator[str]:
    """The whole page."""
    yield from head(status)
    yield from table([COLUMNS, *(row(worker) for worker in status["workers"])])
    for worker in status["workers"]:
        if worker["waits_for"]:
            yield f"worker {worker['slot']} (pid {worker['pid'] or '-'}) waits for {worker['waits_for']}"


def head(status: Mapping[str, Any]) -> Iterator[str]:
    """The server itself, and an empty line."""
    phase = status["phase"] + (f", waits for {status['waits_for']}" if status["waits_for"] else "")
    yield f"{status['target']}  aserver {status['version']}, pid {status['pid']}, up {span(status['uptime'])}: {phase}"
    ready, wanted = status["workers_ready"], status["workers_wanted"]
    yield f"  workers       {ready} of {wanted} serve, generation {status['generation'] or '-'}"
    for each in status["under_way"]:
        yield f"  under way     {each['kind']} for {span(each['seconds'])}"
    yield f"  last reload   {_record(status['last_reload'])}"
    yield f"  last death    {_record(status['last_death'])}"
    for listener in status["listeners"]:
        queue = "" if listener["queue"] is None else f", {listener['queue']} of {listener['backlog']} wait"
        yield f"  listener      {listener['name']}{queue}"
    if owed := sum((Counter(worker.get("clients", {})) for worker in status["workers"]), Counter()):
        yield f"  clients       {'; '.join(f'{count} owe {awaited}' for awaited, count in owed.most_common())}"
    for each in status["certificates"]:
        days = "cannot be read" if each["days"] is None else f"ends in {each['days']:.0f} days"
        yield f"  certificate   {each['file']} {days}"
    yield ""


def _record(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "none"
    return f"{record['time'][:19].replace('T', ' ')} UTC, {record['message']}"


def row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    """A worker's fields, by COLUMNS."""
    names = (str(worker["slot"]), str(worker["pid"] or "-"), str(worker["generation"]), worker["phase"])
    begin = (*names, span(worker["age"]))
    if "requests" not in worker:
        return (*begin, *("-" for _ in COLUMNS[5:]))
    counts = (str(worker[name]) for name in ("requests", "active", "connections", "websockets"))
    measured = (f"{worker['loop_lag'] * 1000:.0f} ms", size(worker["memory"]), f"{worker['cpu']:.0%}")
    return (*begin, *counts, *measured, recycle(worker["next_recycle"]))


def recycle(limits: Sequence[Mapping[str, Any]]) -> str:
    """The limits that will recycle a worker, and how far each is."""
    texts = {
        "max_requests": lambda left: f"after {left} requests",
        "max_lifetime": lambda left: f"in {span(left)}",
        "max_memory": lambda left: f"{size(left)} from max_memory",
    }
    return ", ".join(texts.get(each["why"], lambda _, why=each["why"]: why)(each["left"]) for each in limits) or "never"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns; all but the last are as wide as their widest field."""
    widths = [max(len(fields[column]) for fields in rows) for column in range(len(rows[0]))]
    for fields in rows:
        yield "  ".join(f"{field:<{width}}" for field, width in zip(fields, widths, strict=True)).rstrip()


def span(seconds: float) -> str:
    """A time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds) % 60} s"


def size(count: float) -> str:
    """Bytes, in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
