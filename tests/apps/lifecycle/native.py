"""A loop that was used and properly closed at import: uvloop's getaddrinfo leaves native threads behind."""

import asyncio
import os
import socket

import uvloop

from tests.apps import content
from tests.apps.raw import app

__all__ = ["app"]

content.note(f"import {os.getpid()}")


async def resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(resolve())

#: An open connection, such as a database driver makes, and a loop that ran and was not closed.
connection = socket.create_connection(("127.0.0.1", int(os.environ["PEER_PORT"])))
loop = asyncio.new_event_loop()
loop.run_until_complete(asyncio.sleep(0))
