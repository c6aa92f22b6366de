"""The conversation with the master: its decisions as they happen; twice a second and after each, status and metrics.

Requests are answered from the master's last word, so that no client waits for the master and no number of clients is a
load for it.
"""

import asyncio
import json
import socket
import time
from collections import deque
from typing import Any

from aserver.metrics.samples import Samples

#: Seconds between an answer and the next question.
PERIOD = 0.5
#: Seconds after which the last answer says nothing about now.
STALE = 5.0
#: Records that a new client of the dashboard is given.
MOST_RECORDS = 200
#: Bytes of the longest answer; a thousand workers are half a megabyte.
_LONGEST = 16 << 20


class MasterLine:
    """Keeps the master's last word. `changed` is set, and replaced by another event, whenever there is news."""

    def __init__(self, sock: socket.socket) -> None:
        self.status: dict[str, Any] | None = None
        self.metrics: list[dict[str, Any]] = []
        self.records: deque[dict[str, Any]] = deque(maxlen=MOST_RECORDS)
        self.samples = Samples()
        self.changed = asyncio.Event()
        self.ended = False
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()  # when `status` came, or this began

    @property
    def age(self) -> float:
        """Seconds since the last answer."""
        return self._loop.time() - self.heard

    async def listen(self) -> None:
        """Take in the master's words until it hangs up."""
        reader, writer = await asyncio.open_connection(sock=self._sock, limit=_LONGEST)
        writer.write(b'{"command": "events", "follow": true}\n')
        self._ask(writer)
        counted: dict[str, Any] | None = None
        while line := await _read(reader):
            told = json.loads(line)
            if "record" in told:
                self.records.append(told["record"])
                self._ask(writer)
            elif "metrics" in told:
                counted, self.metrics = told, told["metrics"]
            elif "status" in told:
                self.status, self.heard = told["status"], self._loop.time()
                if counted is not None:
                    self.samples.add(self.status, counted, time.clock_gettime(time.CLOCK_REALTIME))
                self._asked, self._timer = False, self._loop.call_later(PERIOD, self._ask, writer)
            self._tell()
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._tell()
        writer.close()

    def _ask(self, writer: asyncio.StreamWriter) -> None:
        if not self._asked and not writer.is_closing():
            self._asked = True
            if self._timer is not None:
                self._timer.cancel()
            writer.write(b'{"command": "metrics"}\n{"command": "status"}\n')

    def _tell(self) -> None:
        before, self.changed = self.changed, asyncio.Event()
        before.set()

    def readiness(self) -> tuple[bool, str]:
        """Whether traffic may come, and why (not)."""
        if self.status is None or self.age > STALE:
            return False, f"the master has not answered for {self.age:.1f} s"
        return self.status["ready"], self.status["reason"]

    def liveness(self) -> tuple[bool, str]:
        """Whether the master turns, also while its workers are blocked."""
        if self.age > STALE:
            return False, f"the master has not answered for {self.age:.1f} s"
        return True, "the master answers"


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""
