"""The requests and stacks of a worker as text for people. Pure: the master's reply in, lines out."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aserver.command.status_view import span, table

Show = Callable[[Mapping[str, Any]], Iterator[str]]


def requests(worker: Mapping[str, Any]) -> Iterator[str]:
    """A line for each request, the longest first."""
    yield _title(worker)
    if worker["blocked"]:
        yield from _trace(worker)
        return
    rows = []
    for each in worker["requests"]:
        state = "answering" if each["begun"] else ""
        rows.append((span(each["seconds"]), each["request"], each["client"], state, each["request_id"]))
    yield from table([("for", "request", "client", "", "id"), *rows]) if rows else ["no request is under way"]
    for awaited, count in sorted(worker["clients"].items()):
        yield f"clients that owe {awaited}: {count}"


def stacks(worker: Mapping[str, Any]) -> Iterator[str]:
    """Each request, task and thread, with its frames below it."""
    yield _title(worker)
    if worker["blocked"]:
        yield from _trace(worker)
        return
    for each in worker["requests"]:
        yield f"request {each['request']} of {each['client'] or '-'}, {span(each['seconds'])}"
        yield from _indented(each["stack"])
    for kind in ("task", "thread"):
        for each in worker[kind + "s"]:
            yield f"{kind} {each['name']}"
            yield from _indented(each["stack"])


def _title(worker: Mapping[str, Any]) -> str:
    return f"worker {worker['slot']} (generation {worker['generation']}, pid {worker['pid']})"


def _trace(worker: Mapping[str, Any]) -> Iterator[str]:
    begun = f", and the request begun last is {worker['begun_last']}" if worker["begun_last"] else ""
    yield f"its event loop does not answer{begun}; its stacks:"
    yield from _indented(worker["trace"])


def _indented(text: str) -> Iterator[str]:
    for line in text.splitlines() or ["(no frame of the application)"]:
        yield f"  {line}"
