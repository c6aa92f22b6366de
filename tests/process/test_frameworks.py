"""Real frameworks, unchanged, under the real command with `interface=auto`: the app server's main job."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.apps import content
from tests.harness import ServerProcess
from tests.process.rolling import hold, variant

pytestmark = pytest.mark.process

#: More than 1 MB, and other bytes than the download.
UPLOAD = content.DOWNLOAD[:1_200_003][::-1]
RECEIPT = {"bytes": len(UPLOAD), "sha256": hashlib.sha256(UPLOAD).hexdigest()}


@dataclass(frozen=True)
class Framework:
    """A test app; `lifespan`: it tells of startup and shutdown, `state`: it shows lifespan's state at /state.

    `compresses`: it has GZip middleware, which must see the files that it sends (pathsend is off by default).
    """

    target: str
    lifespan: bool = False
    state: bool = False
    multipart: bool = True
    compresses: bool = False


FRAMEWORKS = {
    "fastapi": Framework("tests.apps.fastapi_app:app", lifespan=True, state=True),
    "starlette": Framework("tests.apps.starlette_app:app", lifespan=True, state=True, compresses=True),
    "litestar": Framework("tests.apps.litestar_app:app", lifespan=True),
    "quart": Framework("tests.apps.quart_app:app", lifespan=True),
    "django-asgi": Framework("tests.apps.django_asgi:application"),
    "flask": Framework("tests.apps.flask_app:app"),
    "django-wsgi": Framework("tests.apps.django_wsgi"),
    "bottle": Framework("tests.apps.bottle_app:app"),
    "raw": Framework("tests.apps.raw:app", lifespan=True, state=True, multipart=False),
}


def _in_pieces(data: bytes) -> Iterator[bytes]:
    """An iterator makes httpx send the body chunked."""
    yield from content.pieces(data, 70_001)


def _check_requests(client: httpx.Client, framework: Framework) -> None:
    answer = client.get("/json")
    assert answer.json() == content.GREETING
    assert answer.headers["content-type"].startswith("application/json")
    if framework.multipart:
        answer = client.post("/upload", files={"file": ("a.bin", UPLOAD)}, data={"beside": "a field"})
        assert (answer.status_code, answer.json()) == (200, RECEIPT), "multipart upload"
    assert client.post("/body", content=UPLOAD).json() == RECEIPT, "upload with Content-Length"
    assert client.post("/body", content=_in_pieces(UPLOAD)).json() == RECEIPT, "chunked upload"
    if framework.compresses:
        answer = client.get("/download")
        assert (answer.content, answer.headers.get("content-encoding")) == (content.DOWNLOAD, "gzip")
    answer = client.get("/download", headers={"Accept-Encoding": "identity"})
    assert answer.content == content.DOWNLOAD
    assert answer.headers["content-length"] == str(len(content.DOWNLOAD))
    with client.stream("GET", "/stream") as streamed:
        assert "content-length" not in streamed.headers, "streamed, so its length cannot have been known"
        assert b"".join(streamed.iter_bytes()).decode() == "".join(content.LINES)
    if framework.state:
        assert "lifespan" in client.get("/state").text
    assert client.get("/nothing-here").status_code == 404


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_framework(name: str, server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """JSON, uploads (multipart, sized, chunked), a download, a stream; lifespan where the framework has it."""
    framework = FRAMEWORKS[name]
    events = tmp_path / "events"
    running = server(framework.target, env={"APP_EVENTS": str(events)})
    if framework.lifespan:
        assert events.read_text() == "startup\n", "ready means that startup is complete"
    # trust_env=False: a proxy in the environment is none of the test's business.
    with httpx.Client(base_url=running.url, trust_env=False, timeout=20) as client:
        _check_requests(client, framework)
    assert running.stop() == 0
    if framework.lifespan:
        assert events.read_text() == "startup\nshutdown\n"
    assert "Traceback" not in running.log


def test_factory_and_no_preload(server: Callable[..., ServerProcess]) -> None:
    """A factory, loaded in each of two lazy workers."""
    running = server("tests.apps.flask_app:create_app", "--factory", "--no-preload", "--workers", "2")
    assert running.fetch("/json").status == 200
    assert running.stop() == 0


def test_wsgi_streams_that_nobody_reads_cost_no_one_else_anything(
    server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """More of them than there are threads: others are answered, and each is closed when its client leaves.

    Fails without `lend` in wsgi/threads.py, and with a thread that waits for a client which has gone.
    """
    events = tmp_path / "events"
    running = server("tests.apps.flask_app:app", env={"APP_EVENTS": str(events)})
    with ExitStack() as clients:
        streams = [clients.enter_context(hold(running, "/endless")) for _ in range(12)]
        for stream in streams:
            assert stream.read_head().status == 200
        assert running.fetch("/json").status == 200
    running.wait_for(
        lambda: events.exists() and events.read_text().count("closed") == len(streams), what="the streams to be closed"
    )
    assert running.fetch("/json").status == 200
    assert running.stop() == 0


def test_wsgi_upload_cut_short_is_not_taken_for_whole(server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A client that dies in its upload must not leave a short file that looks complete (bottle does not count)."""
    events = tmp_path / "events"
    running = server("tests.apps.bottle_app:app", env={"APP_EVENTS": str(events)})
    with running.connect() as connection:
        connection.send(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
    running.wait_log(r"POST /body")
    assert running.fetch("/body", method="POST", body=b"whole").status == 200
    assert running.stop() == 0
    assert events.read_text() == "body of 5 bytes\n"


@pytest.mark.parametrize("mode", ["--preload", "--lazy"])
@pytest.mark.parametrize("workers", [pytest.param(1, marks=variant), 2])
def test_a_framework_that_needs_session_affinity_is_told_once(
    server: Callable[..., ServerProcess], mode: str, workers: int
) -> None:
    """Where there are several workers. Fails without `remarks` in zygote and worker, and if each worker told it."""
    running = server("tests.apps.keeps_sessions:app", mode, "--workers", str(workers))
    assert running.log.count("NiceGUI keeps sessions in the process, and 2 workers") == (workers == 2)
