"""The real process of the admin endpoint, and a master that the test plays."""

import datetime
import json
import socket
import subprocess
import sys
import time
from typing import Any, Self

from aserver.config import Config
from aserver.metrics.page import BOUNDS
from tests.harness import PATIENCE, wait_for
from tests.harness.server import REPOSITORY

CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")


def worker(slot: int, **more: Any) -> dict[str, Any]:
    """A worker of a status, which serves unless `more` says otherwise."""
    return {
        "slot": slot, "serial": slot, "pid": 4700 + slot, "generation": 1, "phase": "ready", "waits_for": "",
        "age": 754.2 * slot,
        "requests": 1000, "active": slot % 3, "connections": 12 + slot, "websockets": slot % 2, "accepts": True,
        "silent": 0.04, "loop_lag": 0.0021, "memory": 38 << 20, "cpu_seconds": 12.5, "cpu": 0.3,
        "next_recycle": [{"why": "max_requests", "left": 12000 - 900 * slot}],
    } | more  # fmt: skip


def status(*workers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A status, as docs/operate.md has it."""
    ready = sum(each["phase"] in ("ready", "recycling") for each in workers)
    return {
        "version": "0.1.0", "pid": 4700, "target": "shop.asgi:application", "phase": "serving", "waits_for": "",
        "uptime": 7612.0,
        "generation": 1, "workers_wanted": len(workers), "workers_ready": ready, "ready": True,
        "reason": f"{ready} of {len(workers)} workers serve", "last_reload": None, "last_death": None, "last_event": 0,
        "under_way": [], "listeners": [{"name": "http://127.0.0.1:8000", "queue": 0, "backlog": 2048}],
        "certificates": [], "generations": [], "workers": list(workers),
    } | more  # fmt: skip


class Stage:
    """A context manager. `url` is the page's; `tell` sends what a master would."""

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        self.line, theirs = socket.socketpair()
        with listener, theirs:
            settings = json.dumps(Config(target="a:b").to_wire()).encode() + b"\n"
            socket.send_fds(self.line, [settings], [2, 2, listener.fileno()])
            program = str(REPOSITORY / "aserver" / "admin" / "__main__.py")
            command = [sys.executable, "-P", program, str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self.requests = dict.fromkeys(CLASSES, 0)
        self.buckets = {name: [0] * (len(BOUNDS) + 1) for name in CLASSES}
        self.number = 0
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()
        self.process.wait(PATIENCE)

    def tell(self, **told: Any) -> None:
        """One line."""
        self.line.sendall(json.dumps(told).encode() + b"\n")

    def count(self, name: str, *buckets: int) -> None:
        """More requests of a class, by the first buckets of their duration."""
        for place, number in enumerate(buckets):
            self.buckets[name][place] += number

    def look(self, told: dict[str, Any]) -> None:
        """The metrics and then the status, as they are asked for."""
        samples = [{"labels": {"status": name}, "buckets": self.buckets[name]} for name in CLASSES]
        durations = {"name": "http.server.request.duration", "bounds": BOUNDS, "samples": samples}
        self.tell(uptime=told["uptime"], metrics=[durations])
        self.tell(status=told)

    def happen(self, event: str, message: str, **more: Any) -> None:
        """A record."""
        self.number += 1
        now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="milliseconds")
        record = {"number": self.number, "time": now, "event": event, "level": "info", "message": message}
        self.tell(record=record | more)

    def serves(self) -> bool:
        """Whether the process has begun to answer."""
        host, port = self.url.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((host, int(port)), PATIENCE) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            return wait_for(lambda: client.recv(100), what="the admin endpoint") != b""
