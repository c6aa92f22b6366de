"""What a worker tells of its requests, tasks and threads. Each docstring says how it was seen to fail."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.ipc.messages import MOST_SEEN, Look, Seen
from aserver.protocol.service import Service
from aserver.worker.inspection import inspect
from tests.harness.waiting import eventually
from tests.protocol.serving import serving

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


def look(service: Service | None = None) -> Seen:
    return inspect(Look(7), 3, service, service.owed if service is not None else ())


async def test_requests_with_the_line_where_each_waits_the_longest_first() -> None:
    """Without the query, which may hold a secret. Fails without `partition`, and unsorted."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()

    async with serving(app, metered=True) as server:
        for number, target in enumerate((b"/first?token=hunter2", b"/second" + b"x" * 300)):
            client = await server.connect()
            await client.send(b"GET %s HTTP/1.1\r\nHost: t\r\nX-Request-Id: r%d\r\n\r\n" % (target, number))
            await eventually(lambda: server.service.active == number + 1)  # noqa: B023
        seen = look(server.service)
        first, second = seen.requests
        assert (seen.serial, seen.number) == (3, 7)
        assert first.request == "GET /first"
        assert (second.request, len(second.request)) == ("GET /second" + "x" * 189, 200)
        assert first.client.startswith("127.0.0.1:")
        assert not first.begun
        assert "await go.wait()" in first.stack
        assert first.seconds >= second.seconds >= 0.0
        own = asyncio.current_task()
        assert own is not None
        assert own.get_name() in [task.name for task in seen.tasks]
        assert seen.of == 2 + len(seen.tasks), "a request's task is told once"


async def test_so_many_and_no_more() -> None:
    """The message has a bound. Fails without MOST_SEEN; `of` says how many there are."""
    go = asyncio.Event()
    tasks = [asyncio.create_task(go.wait(), name=f"t{number}" * 100) for number in range(MOST_SEEN + 20)]
    await asyncio.sleep(0)
    seen = look()
    assert (len(seen.tasks), seen.of, seen.requests) == (MOST_SEEN, len(asyncio.all_tasks()), [])
    assert max(len(task.name) for task in seen.tasks) == 200
    go.set()
    await asyncio.gather(*tasks)


async def test_threads_but_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with the stack of the look itself, which says nothing of the application."""
    entered, go = threading.Event(), threading.Event()

    def wait_in_a_library(leave: Callable[[], object]) -> None:
        entered.set()
        leave()

    thread = threading.Thread(target=wait_in_a_library, args=(lambda: go.wait(20),), name="pool-1")
    thread.start()
    entered.wait(20)
    seen = look()
    go.set()
    thread.join()
    (stack,) = [each.stack for each in seen.threads if each.name == "pool-1"]
    assert "wait_in_a_library" in stack
    assert threading.current_thread().name not in [each.name for each in seen.threads]
