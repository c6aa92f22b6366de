"""The programs of incident 5: a pool whose threads are started at import, and work for it in each request."""

import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path

from aserver.asgi import Receive, Scope, Send
from tests.apps import content

content.note(f"import {os.getpid()}")

pool = ThreadPool(processes=1)
executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="appdb")
executor.submit(int).result()


def work(name: str) -> None:
    with Path(os.environ["JOBS_DONE"]).open("a") as file:
        file.write(f"{name} {os.getpid()}\n")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http", "no lifespan here"
    pool.apply_async(work, ("pool",))
    executor.submit(work, "executor")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the job is on its way"})
