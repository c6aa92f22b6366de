"""What the tests of recycling, reload, upgrade and drain share: who is there, a deployed app that changes, wrk."""

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from bench.load.wrk import SCRIPT, WrkResult, parse
from tests.harness import ClosedEarlyError, Process, RawConnection, ServerProcess, require_tool

Start = Callable[..., ServerProcess]

APP = "tests.apps.rollout.app:app"
#: Long variants: as many upgrades, recycles and seconds as issue 3 asks for. `make test` proves the same with fewer.
LONG = bool(os.environ.get("TEST_LONG"))
#: For a test that differs from another in one detail. `make test` leaves these out, `make test-more` runs them.
variant = pytest.mark.variant

_READY = re.compile(r"worker \d+ \(generation (\d+), pid (\d+)\) is ready")


def ready_pids(server: ServerProcess, generation: int | None = None) -> list[int]:
    """The workers that were said to be ready (of one generation), in that order."""
    found = [(int(number), int(pid)) for number, pid in _READY.findall(server.log)]
    return [pid for number, pid in found if generation in (None, number)]


def settle(server: ServerProcess, count: int, generation: int | None = None, *, other_than: int = 0) -> list[Process]:
    """Wait until `count` workers live, each ready and of this generation, none of pid `other_than`; return them."""

    def settled() -> list[Process]:
        workers, ready = server.workers(), {*ready_pids(server, generation)} - {other_than}
        return workers if len(workers) == count and all(each.pid in ready for each in workers) else []

    return server.wait_for(settled, what=f"{count} ready workers of generation {generation or 'whichever'}")


def hold(server: ServerProcess, path: str) -> RawConnection:
    """A connection with a request under way."""
    connection = server.connect()
    connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def keep_to(server: ServerProcess, pid: int) -> RawConnection:
    """A kept connection to that worker; the others may die of being asked."""
    others: list[RawConnection] = []

    def attempt() -> RawConnection | None:
        connection = server.connect()
        with suppress(ClosedEarlyError, ConnectionResetError):
            if int(connection.request("/").body) == pid:
                return connection
        others.append(connection)
        return None

    found = server.wait_for(attempt, what=f"a connection to worker {pid}")
    for other in others:
        other.close()
    assert found is not None
    return found


class Site:
    """An app on disk, to be deployed anew: `target` and `options` are for the command."""

    target = "site_app:app"

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "site"
        self.directory.mkdir()
        self.options = ("--app-dir", str(self.directory))
        # A second version of the same length within the same second would be taken for the first one by its pyc.
        self.env = {"PYTHONDONTWRITEBYTECODE": "1"}
        self.deploy("one")

    def deploy(self, version: str, *, before: str = "", startup: str = "pass") -> None:
        """Put a version in place at once; `before` is run at import, `startup` in lifespan startup."""
        text = f"""
import asyncio, os, time
{before}
VERSION = {version!r}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        {startup}
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    body = VERSION.encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}})
    await send({{"type": "http.response.body", "body": body}})
"""
        new = self.directory / "new"
        new.write_text(text)
        new.rename(self.directory / "site_app.py")


def wrk(url: str, *options: str, seconds: int, connections: int = 16, threads: int = 1) -> WrkResult:
    """Load `url` with wrk; `options` are those of bench/load/wrk.lua."""
    command = [require_tool("wrk"), f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(SCRIPT), url, "--", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return parse(done.stdout)
