"""The connection to the master: it sends its decisions as they happen; status and metrics are asked twice a second.

Requests are answered from the last answer, so that no client waits for the master and no number of clients is a load
for it. Only "not ready" is asked again before it is said: a server that has just announced that it is ready must not be
called unready because the last answer is a moment older. All clients that ask share that question.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections import deque
from typing import Any

from aserver.metrics.samples import Samples

#: Seconds between an answer and the next question.
PERIOD = 0.5
#: Seconds after which the last answer is too old.
STALE = 5.0
#: Seconds that a client waits for another answer before it is told that the server is not ready.
PATIENCE = 0.5
#: Records that a new client of the dashboard is given.
MOST_RECORDS = 200
#: Bytes of the longest answer; a thousand workers are half a megabyte.
_LONGEST = 16 << 20


class MasterLine:
    """Keeps the master's last answers. `changed` is set, and replaced by another event, at each answer and record."""

    def __init__(self, sock: socket.socket) -> None:
        self.status: dict[str, Any] | None = None
        self.metrics: list[dict[str, Any]] = []
        self.records: deque[dict[str, Any]] = deque(maxlen=MOST_RECORDS)
        self.samples = Samples()
        self.changed = asyncio.Event()
        self.ended = False
        self._answers = 0  # to questions about the status
        self._wanted = 0  # answers that clients wait for: the number that `_answers` has then
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()  # when `status` came, or this began

    @property
    def age(self) -> float:
        """Seconds since the last answer."""
        return self._loop.time() - self.heard

    async def listen(self) -> None:
        """Take in the master's records and answers until it closes the connection."""
        reader, writer = await asyncio.open_connection(sock=self._sock, limit=_LONGEST)
        self._writer = writer
        writer.write(b'{"command": "events", "follow": true}\n')
        self._ask()
        counted: dict[str, Any] | None = None
        while line := await _read(reader):
            told = json.loads(line)
            if "record" in told:
                self.records.append(told["record"])
                self._ask()
            elif "metrics" in told:
                counted, self.metrics = told, told["metrics"]
            elif "status" in told:
                self.status, self.heard = told["status"], self._loop.time()
                if counted is not None:
                    self.samples.add(self.status, counted, time.clock_gettime(time.CLOCK_REALTIME))
                self._asked, self._answers = False, self._answers + 1
                if self._wanted > self._answers:
                    self._ask()
                else:
                    self._timer = self._loop.call_later(PERIOD, self._ask)
            self._tell()
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._tell()
        writer.close()

    def _ask(self) -> None:
        if self._writer is not None and not self._asked and not self._writer.is_closing():
            self._asked = True
            if self._timer is not None:
                self._timer.cancel()
            self._writer.write(b'{"command": "metrics"}\n{"command": "status"}\n')

    def _tell(self) -> None:
        before, self.changed = self.changed, asyncio.Event()
        before.set()

    async def readiness(self) -> tuple[bool, str]:
        """Whether traffic may come, and why (not)."""
        ready, reason = self._last_readiness()
        if not ready:
            # The answer to a question that is under way may be older than this moment: then the next one counts.
            wanted = self._answers + (2 if self._asked else 1)
            self._wanted = max(self._wanted, wanted)
            self._ask()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while self._answers < wanted and not self.ended:
                        await self.changed.wait()
            ready, reason = self._last_readiness()
        return ready, reason

    def _last_readiness(self) -> tuple[bool, str]:
        if self.status is None or self.age > STALE:
            return False, f"the master has not answered for {self.age:.1f} s"
        return self.status["ready"], self.status["reason"]

    def liveness(self) -> tuple[bool, str]:
        """Whether the master answers, also while its workers are blocked."""
        if self.age > STALE:
            return False, f"the master has not answered for {self.age:.1f} s"
        return True, "the master answers"


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""
