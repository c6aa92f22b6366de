"""The time from a save to the first answer of the new code, for each server's own reload: `python -m bench dev`.

Runs in the harness process. A client asks without a pause, on a connection for each request, from the moment of the
save; a request that fails counts, because a browser would show it.
"""

import http.client
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

#: By framework: the file that is saved, and the target in it.
APPS: Mapping[str, str] = {
    "FastAPI": """
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def index() -> str:
    return "VERSION"
""",
    "Django": """
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(
    DEBUG=True, ALLOWED_HOSTS=["*"], SECRET_KEY="s", ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
urlpatterns = [path("", lambda request: HttpResponse("VERSION"))]
app = get_asgi_application()
""",
}
#: The servers' commands, behind the interpreter.
COMMANDS: Mapping[str, str] = {
    "aserver": "-m aserver dev main:app --bind 127.0.0.1:{port} --control off --no-access-log",
    "uvicorn": "-m uvicorn main:app --reload --port {port} --no-access-log",
    "granian": "-m granian --interface asgi --reload --port {port} main:app",
    "hypercorn": "-m hypercorn --reload --bind 127.0.0.1:{port} main:app",
}
#: Seconds that a server may take to begin, or a save to be answered; and for which nothing happens between two saves.
PATIENCE, QUIET = 30.0, 0.7


@dataclass
class Times:
    """The milliseconds of each save, and how many requests failed meanwhile."""

    saves: list[float] = field(default_factory=list)
    failed: int = 0

    def row(self) -> str:
        """Median, slowest, and failures, as cells of a table."""
        return f"{statistics.median(self.saves):.0f} ms | {max(self.saves):.0f} ms | {self.failed}"


def measure(python: str, server: str, app: str, saves: int, checkout: Path) -> Times:
    """Save `saves` times. Raises TimeoutError if the new code does not answer."""
    times = Times()
    with tempfile.TemporaryDirectory(prefix="bench-dev-") as name, _port() as port:
        file = Path(name, "main.py")
        file.write_text(APPS[app].replace("VERSION", "version-0"))
        with _running([python, *COMMANDS[server].format(port=port).split()], name, checkout):
            _until(port, "version-0")
            time.sleep(3 * QUIET)
            for number in range(1, saves + 1):
                time.sleep(QUIET)
                begin = time.perf_counter()
                file.write_text(APPS[app].replace("VERSION", f"version-{number}"))
                times.failed += _until(port, f"version-{number}")
                times.saves.append((time.perf_counter() - begin) * 1000)
    return times


def table(python: str, saves: int, checkout: Path) -> Iterator[str]:
    """The lines of the table, each as soon as it is known."""
    yield "| | | from the save to the new answer, median | slowest | failed requests |"
    yield "|---|---|---|---|---|"
    for app in APPS:
        for server in COMMANDS:
            yield f"| {app} | {server} | {measure(python, server, app, saves, checkout).row()} |"


@contextmanager
def _port() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    yield port


@contextmanager
def _running(command: list[str], directory: str, checkout: Path) -> Iterator[None]:
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        command, cwd=directory, env=env, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        yield
    finally:
        server.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # reloaders may leave their children
        server.wait()


def _until(port: int, text: str) -> int:
    """Ask until the answer has `text`; returns how many requests failed."""
    failed, end = 0, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            client.request("GET", "/")
            if text in client.getresponse().read().decode(errors="replace"):
                return failed
        except (OSError, http.client.HTTPException):
            failed += 1
            time.sleep(0.005)
        finally:
            client.close()
    raise TimeoutError(f"the answer never had {text!r}")
