"""`aserver dev`: a save is served by new code, no request is lost to it, and broken code is shown and mended.

The tests share a server; each saves an application of its own, and the next one does not care.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.harness import Load, RawConnection, ServerProcess
from tests.process.rolling import LONG

pytestmark = pytest.mark.process

APP = """
import starlette.applications, starlette.responses, starlette.routing

async def index(request):
    return starlette.responses.PlainTextResponse("VERSION")

async def page(request):
    return starlette.responses.HTMLResponse("<p>VERSION")

async def boom(request):
    secret = 1
    raise LookupError("nothing here")

async def events(request):
    async def stream():
        yield "data: VERSION\\n\\n"
        import asyncio
        await asyncio.sleep(3600)
    return starlette.responses.StreamingResponse(stream(), media_type="text/event-stream")

async def echo(socket):
    await socket.accept()
    async for message in socket.iter_text():
        await socket.send_text("VERSION")

app = starlette.applications.Starlette(routes=[
    starlette.routing.Route("/", index),
    starlette.routing.Route("/page", page),
    starlette.routing.Route("/boom", boom),
    starlette.routing.Route("/events", events),
    starlette.routing.WebSocketRoute("/ws", echo),
])
"""
BROKEN = APP + "\nimport starlette\napp = starlette.no_such_thing\n"


class Project:
    """A directory with an application, and `aserver dev` over it."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.save("first")
        argv = [*ServerProcess.command("main:app"), "--bind", "127.0.0.1:0", *options]
        argv[argv.index("run")] = "dev"
        self.server = ServerProcess(argv=argv, cwd=directory)

    def save(self, version: str, app: str = APP) -> None:
        """Save the application as an editor does."""
        fresh = self.directory / ".main.py.swap"
        fresh.write_text(app.replace("VERSION", version))
        fresh.rename(self.directory / "main.py")

    def answers(self, text: str, path: str = "/") -> None:
        """Wait until the new code answers."""
        self.server.wait_for(lambda: text in self.server.fetch(path).text, what=f"{text!r} from {path}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("project"), "--live")
    with project.server as server:
        server.wait_ready()
        yield project


def test_a_save_is_served_by_a_worker_with_the_packages_of_before(project: Project) -> None:
    """Fails without `Warmth`: nothing is loaded ahead."""
    project.server.wait_log(r"modules of installed packages are loaded ahead")
    zygote = project.server.zygotes()
    project.save("second")
    project.answers("second")
    assert project.server.zygotes() == zygote, "no new process loads the packages"
    assert "main.py was saved" in project.server.log


def test_saves_under_load_lose_no_request(project: Project) -> None:
    """Kept connections and new ones; each answer is whole, and the newest code is among them after each save.

    Fails without `Relay.hand_on` (reset or closed before the answer), and with the old worker accepting on.
    """
    where = project.server.where
    with (
        Load(where, connections=4, good=lambda status, body: status == 200) as kept,
        Load(where, connections=2, keep_alive=False) as fresh,
    ):
        for number in range(50 if LONG else 12):
            project.save(f"v{number}")
            project.answers(f"v{number}")
    for load in (kept, fresh):
        load.outcome.check(at_least=12)
    project.server.wait_for(lambda: len(project.server.workers()) == 1, what="the old workers to leave")


def test_saves_leave_nothing_behind(project: Project) -> None:
    """No descriptor in master or zygote, and no process, after some saves more."""

    def open_files() -> list[int]:
        pids = [project.server.pid, project.server.zygotes()[0].pid]
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

    def settled() -> bool:
        return len(project.server.workers()) == 1

    project.save("before")
    project.answers("before")
    project.server.wait_for(settled, what="one worker")
    before = open_files()
    for number in range(100 if LONG else 5):
        project.save(f"w{number}")
        project.answers(f"w{number}")
    project.server.wait_for(settled, what="one worker")
    project.server.wait_for(lambda: open_files() <= before, what=f"the descriptors to be {before} again")


def test_a_request_on_a_kept_connection_is_answered_by_the_new_code(project: Project) -> None:
    """Though the client connected to the old worker. Fails without `Relay`."""
    project.save("old")
    project.answers("old")
    with RawConnection(project.server.where) as client:
        assert client.request("/").text == "old"
        project.save("new")
        project.answers("new")
        assert client.request("/").text == "new"


def test_websockets_and_streams_are_told_and_come_back(project: Project) -> None:
    """1012 and an end, at once. Fails without the relay's branch in ServerDrain.run: they would keep the old code."""
    project.save("one")
    project.answers("one")
    url = project.server.url.replace("http", "ws") + "/ws"
    with RawConnection(project.server.where) as stream, connect(url) as socket:
        stream.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stream.read_head().status == 200
        socket.send("hello")
        assert socket.recv() == "one"
        project.save("two")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert b"one" in stream.read_to_end()
    with connect(url) as socket:
        socket.send("hello")
        assert socket.recv() == "two"


def test_broken_code_is_shown_in_terminal_and_browser_until_it_is_mended(project: Project) -> None:
    """Fails without `_shows_failures`: the server would answer nothing."""
    start = len(project.server.log)
    project.save("broken", BROKEN)
    project.server.wait_log(r"no_such_thing", start=start)
    answer = project.server.fetch("/any/path", headers={"Accept": "text/html"})
    assert answer.status == 500
    assert "no_such_thing" in answer.text
    assert "EventSource" in answer.text
    shown = project.server.log[start:]
    assert "main.py" in shown
    assert "importlib" not in shown
    assert "site-packages" not in shown
    with RawConnection(project.server.where) as live:
        live.send(b"GET /_aserver/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert live.read_head().status == 200
        project.save("mended")
        assert b"data: " in live.read_to_end(), "the page hears that this worker leaves"
    project.answers("mended")


def test_a_syntax_error_and_a_failed_lifespan_are_shown(project: Project) -> None:
    project.save("broken", "app = = 3\n")
    project.answers("SyntaxError")
    lifespan = 'async def app(scope, receive, send):\n    await receive()\n    raise OSError("no database")\n'
    project.save("broken", lifespan)
    project.server.wait_log("no database")  # ASGI: an app that raises there is served without a lifespan
    failing = lifespan.replace(
        'raise OSError("no database")', 'await send({"type": "lifespan.startup.failed", "message": "no queue"})'
    )
    project.save("broken", failing)
    project.answers("no queue")
    project.save("fine")
    project.answers("fine")


def test_an_exception_in_a_handler_is_a_page(project: Project) -> None:
    project.save("x")
    project.answers("x")
    answer = project.server.fetch("/boom", headers={"Accept": "text/html"})
    assert answer.status == 500
    assert "LookupError: nothing here" in answer.text
    assert "secret = 1" in answer.text, "the lines around"
    assert "EventSource" in project.server.fetch("/page").text, "live"


def test_a_package_or_the_environment_is_a_whole_new_generation(project: Project) -> None:
    (project.directory / "uv.lock").write_text("")
    project.server.wait_log(r"generation 2 serves")
    project.save("after")
    project.answers("after")


def test_with_keep_serving_the_code_before_serves(tmp_path: Path) -> None:
    """And an exception in a handler is shown only to the developer: `run` without reload answers as it ever did."""
    project = Project(tmp_path, "--keep-serving")
    with project.server as server:
        server.wait_ready()
        project.save("broken", BROKEN)
        server.wait_log("the code before serves on")
        assert "no_such_thing" in server.log
        assert server.fetch("/").text == "first"
        project.save("mended")
        project.answers("mended")
        assert "EventSource" not in server.fetch("/page").text


def test_run_shows_no_source(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    with ServerProcess("main:app", cwd=tmp_path) as server:
        server.wait_ready()
        answer = server.fetch("/boom", headers={"Accept": "text/html"})
        assert answer.status == 500
        assert "LookupError" not in answer.text
        assert server.fetch("/_aserver/live").status == 404
