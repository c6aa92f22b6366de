"""Requests and stacks of a worker as lines. Each docstring says how it was seen to fail."""

from typing import Any

from aserver.command import looks

REQUEST = {
    "request": "GET /slow", "client": "", "seconds": 75.0, "begun": True, "request_id": "r1",
    "stack": "  File x\n    wait()",
}  # fmt: skip
WORKER: dict[str, Any] = {
    "slot": 1, "generation": 2, "pid": 99, "blocked": False, "begun_last": "", "trace": "", "requests": [],
    "clients": {}, "tasks": [], "threads": [],
}  # fmt: skip
TITLE = "worker 1 (generation 2, pid 99)"


def test_a_line_for_each_request_and_the_clients_that_owe_something() -> None:
    """Fails with columns of their own width in each line."""
    worker = WORKER | {"requests": [REQUEST], "clients": {"head": 2, "body": 1}}
    assert list(looks.requests(worker)) == [
        TITLE,
        "for         request    client             id",
        "1 min 15 s  GET /slow          answering  r1",
        "clients that owe body: 1",
        "clients that owe head: 2",
    ]
    assert list(looks.requests(WORKER)) == [TITLE, "no request is under way"]


def test_stacks_of_requests_tasks_and_threads() -> None:
    """Fails with a stack that is empty and looks like the next one's."""
    worker = WORKER | {
        "requests": [REQUEST],
        "tasks": [{"name": "poller", "stack": ""}],
        "threads": [{"name": "pool-1", "stack": "  File y"}],
    }
    assert list(looks.stacks(worker)) == [
        TITLE,
        "request GET /slow of -, 1 min 15 s",
        "    File x",
        "      wait()",
        "task poller",
        "  (no frame of the application)",
        "thread pool-1",
        "    File y",
    ]


def test_a_loop_that_does_not_answer_is_shown_by_its_trace() -> None:
    """Fails where its empty lists are told as "no request is under way"."""
    worker = WORKER | {"blocked": True, "begun_last": "/slow", "trace": "File z"}
    said = [TITLE, "its event loop does not answer, and the request begun last is /slow; its stacks:", "  File z"]
    assert list(looks.requests(worker)) == list(looks.stacks(worker)) == said
    assert "its event loop does not answer; its stacks:" in looks.stacks(WORKER | {"blocked": True})
