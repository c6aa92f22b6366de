"""Clients that keep asking while something happens to the server, and count what they saw.

One thread with an asyncio loop of its own carries all connections; the test's own thread is free.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.harness.client import Where, parse_head
from tests.harness.waiting import PATIENCE, wait_for


@dataclass(slots=True)
class Outcome:
    """What the clients saw. `failures` counts by kind, `first` tells of the first failure of each kind."""

    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    bodies: Counter[bytes] = field(default_factory=Counter)
    connections: int = 0
    slowest: float = 0.0

    def fail(self, kind: str, detail: str) -> None:
        """Count a failure."""
        self.failures[kind] += 1
        self.first.setdefault(kind, detail)

    def check(self, at_least: int = 1) -> None:
        """Raise AssertionError unless nothing failed and `at_least` requests succeeded."""
        assert not self.failures, f"{sum(self.failures.values())} failed, {self.ok} succeeded: {self.first}"
        assert self.ok >= at_least, f"only {self.ok} requests were made, {at_least} are needed to say anything"


class Load:
    """A context manager: connections ask from the beginning of the block until its end.

    `keep_alive`: each connection is used until the server says `Connection: close`; otherwise each request has
    its own. `pause` in seconds between requests of one connection keeps the load from starving the server on
    a small machine. `good(status, body)` says whether an answer counts as a success.

    Kinds of failure: "refused", "reset", "closed before the answer", "closed in the answer", "timeout",
    "status NNN", "bad answer". The last request under way when the block ends is finished and counted.
    """

    def __init__(
        self,
        where: Where,
        path: str = "/",
        *,
        connections: int = 8,
        keep_alive: bool = True,
        pause: float = 0.005,
        timeout: float = PATIENCE,
        good: Callable[[int, bytes], bool] = lambda status, _: status == 200,
    ) -> None:
        self.outcome = Outcome()
        self._where = where
        self._connections = connections
        self._keep_alive = keep_alive
        self._pause = pause
        self._timeout = timeout
        self._good = good
        closing = "" if keep_alive else "Connection: close\r\n"
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{closing}\r\n".encode()
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(self._timeout + 5)
        assert not self._thread.is_alive(), "the load client did not end"

    def wait_for_more(self, count: int) -> None:
        """Wait until `count` more requests have succeeded or one has failed."""
        goal = self.outcome.ok + count
        wait_for(
            lambda: self.outcome.ok >= goal or self.outcome.failures, what=f"{count} more answers to the load client"
        )

    def wait_for_different(self, count: int) -> None:
        """Wait until so many different bodies (each worker's own, say) have come or a request has failed."""
        wait_for(lambda: len(self.outcome.bodies) >= count or self.outcome.failures, what=f"{count} different answers")

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._connections)))

    async def _client(self) -> None:
        while not self._stopping:
            writer: asyncio.StreamWriter | None = None
            try:
                async with asyncio.timeout(self._timeout):
                    reader, writer = await self._connect()
                self.outcome.connections += 1
                await self._use(reader, writer)
            except ConnectionRefusedError as error:
                self.outcome.fail("refused", str(error))
                await asyncio.sleep(self._pause)
            except OSError as error:
                kind = "timeout" if isinstance(error, TimeoutError) else "reset"
                self.outcome.fail(kind, repr(error))
            except asyncio.IncompleteReadError as error:
                kind = "closed in the answer" if error.partial else "closed before the answer"
                self.outcome.fail(kind, repr(error.partial[:200]))
            except (AssertionError, ValueError, asyncio.LimitOverrunError) as error:
                self.outcome.fail("bad answer", repr(error))
            finally:
                if writer is not None:
                    writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._where, str):
            return await asyncio.open_unix_connection(self._where)
        return await asyncio.open_connection(*self._where)

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask on one connection until it is to be closed."""
        while not self._stopping:
            begin = time.monotonic()
            async with asyncio.timeout(self._timeout):
                writer.write(self._request)
                status, body, close = await _answer(reader)
            self.outcome.slowest = max(self.outcome.slowest, time.monotonic() - begin)
            if self._good(status, body):
                self.outcome.ok += 1
                self.outcome.bodies[body[:200]] += 1
            else:
                self.outcome.fail(f"status {status}", repr(body[:200]))
            if self._pause:
                await asyncio.sleep(self._pause)
            if close or not self._keep_alive:
                return


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body and whether the connection ends with this response."""
    head = await reader.readuntil(b"\r\n\r\n")
    _, status, _, headers = parse_head(head)
    fields = {name.lower(): value for name, value in headers}
    close = fields.get("connection", "").lower() == "close"
    try:
        if "content-length" in fields:
            return status, await reader.readexactly(int(fields["content-length"])), close
        if fields.get("transfer-encoding", "").lower() != "chunked":
            return status, await reader.read(), True
        body = bytearray()
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    except asyncio.IncompleteReadError as error:
        # The head has come, so this is never "before the answer", even with nothing of the body.
        raise asyncio.IncompleteReadError(head + error.partial, error.expected) from None
    return status, bytes(body), close
