"""The time from a save to the first answer of the new code, for each server's own reload: `python -m bench dev`.

Runs in the harness process. From the save on, a client sends requests without a pause, each on a connection of its own.
Failed requests are counted, because a browser would show them.
"""

import http.client
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.servers import free_port

#: Framework -> the file that is saved; VERSION changes with each save.
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
#: Server -> the arguments of the interpreter.
COMMANDS: Mapping[str, str] = {
    "aserver": "-m aserver dev main:app --bind 127.0.0.1:{port} --control off --no-access-log",
    "uvicorn": "-m uvicorn main:app --reload --port {port} --no-access-log",
    "granian": "-m granian --interface asgi --reload --port {port} main:app",
    "hypercorn": "-m hypercorn --reload --bind 127.0.0.1:{port} main:app",
}
#: Seconds for a server's start, and for the answer to a save; seconds without an event before each save.
PATIENCE, QUIET = 30.0, 0.7


@dataclass
class Times:
    """The milliseconds of each save, and the number of requests that failed meanwhile."""

    saves: list[float] = field(default_factory=list)
    failed: int = 0

    def row(self) -> str:
        """Return median, slowest, and failures, as cells of a table."""
        return f"{statistics.median(self.saves):.0f} ms | {max(self.saves):.0f} ms | {self.failed}"


def measure(python: str, server: str, app: str, saves: int, checkout: Path) -> Times:
    """Save the file `saves` times, and time the answers. Raises TimeoutError if the new code does not answer."""
    times = Times()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-dev-") as name:
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
    """Yield the lines of the table, each as soon as it is measured."""
    yield "| | | from the save to the new answer, median | slowest | failed requests |"
    yield "|---|---|---|---|---|"
    for app in APPS:
        for server in COMMANDS:
            yield f"| {app} | {server} | {measure(python, server, app, saves, checkout).row()} |"


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
    """Send requests until an answer has `text`; return the number of failed requests."""
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
