"""Clients that ask all the time, and remember each answer and each failure with its time."""

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

REQUEST = b"GET / HTTP/1.1\r\nHost: fleet\r\n\r\n"
#: Seconds that an answer may take.
PATIENCE = 20.0
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass
class Load:
    """`clients` that ask one request after another, over a connection of their own each, until `stop`."""

    where: tuple[str, int]
    clients: int = 16
    began: float = field(default_factory=time.monotonic)
    answers: list[tuple[float, str]] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self) -> None:
        """Wait for the answers that are under way."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def since(self, moment: float) -> set[str]:
        """The bodies of the answers since a moment."""
        return {body for at, body in self.answers if at >= moment}

    def plot(self) -> str:
        """A line for each host and version: how many answers it gave in each second, as bars."""
        per_second = Counter((body, int(at)) for at, body in self.answers)
        most = max(per_second.values(), default=1)
        return "\n".join(
            f"{name:>8} "
            + "".join(_BARS[-(-per_second[name, second] * 8 // most)] for second in range(int(self.now) + 1))
            for name in sorted({name for name, _ in per_second})
        )

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.clients):
                group.create_task(self._client())

    async def _client(self) -> None:
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stopped.is_set():
            try:
                if stream is None:
                    stream = await asyncio.open_connection(*self.where)
                async with asyncio.timeout(PATIENCE):
                    status, body, keeps = await self._ask(*stream)
                if status == 200:
                    self.answers.append((self.now, body))
                else:
                    self.failures.append((self.now, f"{status} {body[:60]!r}"))
                if not keeps:
                    stream[1].close()
                    stream = None
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append((self.now, repr(error)))
                if stream is not None:
                    stream[1].close()
                stream = None
        if stream is not None:
            stream[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, str, bool]:
        writer.write(REQUEST)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        if "content-length" in fields:
            body = await reader.readexactly(int(fields["content-length"]))
        elif fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.read()
        return int(head.split(" ")[1]), body.decode(), fields.get("connection") != "close"
