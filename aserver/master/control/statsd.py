"""Pushes the metrics to a statsd server, every ten seconds and at the end.

Runs in the master. It never waits: datagrams that cannot be sent at once are lost, and a name is resolved in a thread.
"""

import asyncio
import contextlib
import logging
import socket
from typing import Any

from aserver.master.control.measures import Measures
from aserver.master.control.metrics import metrics
from aserver.master.runner import Runner
from aserver.metrics.statsd import Statsd

log = logging.getLogger("aserver.master")

#: Seconds between two pushes: statsd servers flush as often.
PERIOD = 10.0


class StatsdPush:
    """Follows `statsd_host`, `statsd_prefix` and `dogstatsd_tags` through reloads."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._measures = Measures()
        self._settings: tuple[object, ...] = ()
        self._lines = Statsd("", (), {})
        self._socket: socket.socket | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Push the counts since the last push."""
        self._task.cancel()
        self._push()
        self._hang_up()

    async def _run(self) -> None:
        while True:
            config = self._runner.resources.next.config
            settings = (config.statsd_host, config.statsd_prefix, config.dogstatsd_tags)
            if settings != self._settings:
                if self._settings:  # else an upgrade has left the counts that were told, from which the next go on
                    self._runner.told.clear()
                self._settings = settings
                self._lines = Statsd(config.statsd_prefix or "", config.dogstatsd_tags, self._runner.told)
                self._hang_up()
            if self._socket is None and config.statsd_host:
                await self._connect(config.statsd_host)
            self._push()
            await asyncio.sleep(PERIOD)

    async def _connect(self, address: str) -> None:
        try:
            family: int = socket.AF_UNIX
            where: Any = address.removeprefix("unix:")
            if not address.startswith("unix:"):
                host, _, port = address.rpartition(":")
                loop = asyncio.get_running_loop()
                (found, *_) = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
                family, where = found[0], found[4]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(where)
        except OSError as error:
            self._hang_up()
            log.warning("no metrics are sent to %s (statsd_host): %s; it is tried again", address, error)

    def _push(self) -> None:
        if self._socket is not None:
            for datagram in self._lines.datagrams(metrics(self._runner, self._measures)):
                with contextlib.suppress(OSError):  # no server is there, or the queue is full
                    self._socket.send(datagram)

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
