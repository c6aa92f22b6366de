"""The requests, tasks and threads of this worker, and where each stands.

Runs in the worker's loop, when the master asks. It calls nothing of the application, and changes nothing.
"""

import asyncio
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterable

from aserver import importer
from aserver.ipc.messages import LONGEST_STACK, MOST_SEEN, Look, RequestSeen, Seen, Stack, shorten
from aserver.metrics.page import Awaited
from aserver.protocol.application.tasks import Request
from aserver.protocol.service import Service

#: Characters of a request's or a task's name.
_LONGEST_NAME = 200


def inspect(look: Look, serial: int, service: Service | None, owed: Iterable[Awaited]) -> Seen:
    """The answer to `look`; the longest requests come first. `owed` are the next duties of all clients."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    running = sorted(service.tasks.running, key=lambda request: request.started) if service is not None else []
    serving = {request.task for request in running}
    others = [task for task in asyncio.all_tasks(loop) if task not in serving]
    return Seen(
        serial,
        look.number,
        len(running) + len(others),
        [_request(request, now) for request in running[:MOST_SEEN]],
        [Stack(task.get_name()[:_LONGEST_NAME], _waiting(task)) for task in others[:MOST_SEEN]],
        _threads()[:MOST_SEEN],
        Counter(each.value for each in owed),
    )


def _request(request: Request, now: float) -> RequestSeen:
    target = request.target.partition(b"?")[0].decode("ascii", "backslashreplace")
    client = request.client
    return RequestSeen(
        request=f"{request.method} {target}"[:_LONGEST_NAME],
        client="" if client is None else f"{client[0]}:{client[1]}" if client[1] else str(client[0]),
        seconds=round(max(0.0, now - request.started), 3),
        begun=request.begun,
        request_id=request.request_id or "",
        stack=_waiting(request.task) if request.task is not None else "",
    )


def _waiting(task: "asyncio.Task[object]") -> str:
    return shorten(importer.waiting(task.get_coro()).rstrip(), LONGEST_STACK)


def _threads() -> list[Stack]:
    """All threads but this, in which the function itself runs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    stacks = {ident: "".join(traceback.format_stack(frame)) for ident, frame in sys._current_frames().items()}
    return [
        Stack(names.get(ident, str(ident))[:_LONGEST_NAME], shorten(stack.rstrip(), LONGEST_STACK))
        for ident, stack in stacks.items()
        if ident != own
    ]
