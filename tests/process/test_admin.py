"""The admin endpoint of a real server: whatever happens to the workers, it answers, and it costs them nothing."""

import asyncio
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aserver.command.instances import Line
from tests.harness import Process, ServerProcess, fetch
from tests.harness.client import RawConnection, RawResponse
from tests.harness.server import REPOSITORY
from tests.process.embedding import Footprint, served
from tests.process.rolling import Site, Start, hold

pytestmark = pytest.mark.process

APP = "tests.apps.controlled:app"
ADMIN = ("--admin", "127.0.0.1:0")


def where(server: ServerProcess) -> tuple[str, int]:
    (found, *_) = server.wait_log(r"admin endpoint: http://127\.0\.0\.1:(\d+)")
    return "127.0.0.1", int(found[1])


def ask(server: ServerProcess, path: str) -> RawResponse:
    return fetch(where(server), path)


def ready(server: ServerProcess) -> None:
    """Wait for the answer of a server that serves."""
    server.wait_for(lambda: ask(server, "/readyz").text == "ok: the worker serves\n", what="/readyz to say so")


def companion(server: ServerProcess, *, other_than: int = 0) -> Process:
    def found() -> Process | None:
        named = [each for each in server.children() if re.search(r": admin$|/admin/__main__.py", each.title)]
        return next((each for each in named if each.pid != other_than), None)

    return server.wait_for(found, what="the admin endpoint's process")  # type: ignore[return-value]


def test_it_comes_back_and_never_loads_the_application(server: Start, tmp_path: Path) -> None:
    """Also through its own death, a reload and an upgrade. Fails without Companion's `_look`, or its listeners kept."""
    site = Site(tmp_path)
    loads = tmp_path / "loads"
    site.deploy("one", before=f"import os\nopen({str(loads)!r}, 'a').write(f'{{os.getpid()}}\\n')")
    running = server(site.target, *site.options, *ADMIN, env=site.env)
    first = companion(running)
    ready(running)

    first.kill()
    assert ask(running, "/livez").status == 200, "a client waits in the queue for the next process"
    running.wait_log(r"admin endpoint's process \(pid \d+\) was killed by SIGKILL .*; the workers serve on")
    second = companion(running, other_than=first.pid)
    start = len(running.log)
    running.signal(signal.SIGHUP)
    running.wait_log("reload complete: generation 2", start=start)
    assert second.alive

    with RawConnection(where(running)) as viewer:
        viewer.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert viewer.read_head().status == 200
        running.signal(signal.SIGUSR2)
        running.wait_log("upgrade complete: generation 3")
        viewer.read_to_end()  # the process of before has ended
    third = companion(running, other_than=second.pid)
    ready(running)
    assert third.alive
    loaded = {int(line) for line in loads.read_text().split()}
    assert not loaded & {first.pid, second.pid, third.pid}
    running.signal(signal.SIGUSR1)
    companion(running, other_than=third.pid)
    assert ask(running, "/livez").status == 200
    assert running.stop() == 0


#: Python runs this before anything else (site): a signal lets the process of the admin endpoint hang.
HANG = """
import signal, sys, time

def stand_still(*_):
    time.sleep(600)

if any("/admin/__main__" in each for each in sys.orig_argv):
    signal.signal(signal.SIGPROF, stand_still)
"""


def test_it_is_replaced_when_it_hangs(server: Start, tmp_path: Path) -> None:
    """With its stacks in the log, unless it cannot write them. Fails without `_end_silence`, without `read_trace`."""
    (tmp_path / "sitecustomize.py").write_text(HANG)
    running = server(APP, *ADMIN, "--hang-timeout", "3", env={"PYTHONPATH": str(tmp_path)})
    first = second = companion(running)
    for signum in signal.SIGPROF, signal.SIGSTOP:
        first = second
        ready(running)
        start = len(running.log)
        first.kill(signum)
        pattern = rf"admin endpoint's process \(pid {first.pid}\) has asked nothing for 3\.\d s .* and was killed"
        running.wait_log(pattern, start=start)
        assert ("in stand_still" in running.log[start:]) is (signum == signal.SIGPROF)
        second = companion(running, other_than=first.pid)
    assert ask(running, "/livez").status == 200
    assert running.stop() == 0


def test_it_says_that_the_server_is_not_ready_while_all_workers_are_blocked(server: Start) -> None:
    """While it boots, drains, and waits with `drain_delay`; its workers are blocked at times. Fails with their word."""
    running = server(
        APP, *ADMIN, "--hang-timeout", "0", "--graceful-timeout", "60", "--drain-delay", "60s", ready=False
    )
    assert ask(running, "/livez").status == 200
    running.wait_ready()
    assert ask(running, "/readyz").text == "ok: the worker serves\n", "from the moment at which the log says so"
    blocking = hold(running, "/block?600")
    running.terminate()
    said = running.wait_for(
        lambda: (answer := ask(running, "/readyz")).status == 503 and answer.text, what="the stop to be told"
    )
    assert re.fullmatch(r"unavailable: the server stops, and waits for drain_delay, another \d+ s\n", str(said))
    assert b'"phase": "stopping"' in ask(running, "/status").body
    metrics = {each.name: each for each in text_string_to_metric_families(ask(running, "/metrics").text)}
    assert [each.value for each in metrics["aserver_workers_wanted"].samples] == [1]
    running.workers()[0].kill()
    blocking.close()
    running.kill()
    assert running.wait_exit() == -signal.SIGKILL, "and the process of the admin endpoint does not outlive it"


def test_an_address_that_is_taken_costs_the_admin_endpoint_only(server: Start) -> None:
    """And `health_check` needs none. Fails with the error of `bind` for all listeners, or without tell_readiness."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        more = ("--health-check", "/healthz", "--drain-delay", "60s")
        running = server(APP, "--admin", f"127.0.0.1:{port}", *more, bind=("127.0.0.1:0", "h2c://127.0.0.1:0"))
        running.wait_log(rf"ERROR admin: cannot .*:{port}.* in use by .*; the server runs without its admin endpoint")
    assert running.fetch("/healthz").text == "ok: the worker serves\n", "from the moment at which the log says so"
    (clear,) = (each.url for each in running.addresses if each.scheme == "h2c")
    with httpx.Client(http1=False, http2=True) as client:
        answer = client.get(clear + "/healthz")
    assert (answer.http_version, answer.text) == ("HTTP/2", "ok: the worker serves\n")
    running.terminate()
    running.wait_for(lambda: running.fetch("/healthz").status == 503, what="it to say that the server stops")
    assert "drain_delay" in running.fetch("/healthz").text
    assert running.fetch("/").text == "hello", "it accepts until then"
    running.signal(signal.SIGINT)
    assert running.wait_exit() == 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_embedding_program_may_have_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `control` and `admin` name paths, `serve()` answers there. Fails without `controlled`."""
    monkeypatch.chdir(REPOSITORY)
    before = Footprint()
    control, admin = tmp_path / "control", tmp_path / "admin"
    async with served(APP, control=str(control), admin=f"unix:{admin}"):

        def look() -> tuple[dict[str, Any], int]:
            with Line(str(control)) as line:
                return line.status(), fetch(str(admin), "/livez").status

        status, alive = await asyncio.to_thread(look)
        assert (status["pid"], status["target"], alive) == (os.getpid(), APP, 200)
    assert not list(tmp_path.iterdir())
    await asyncio.get_running_loop().shutdown_default_executor()
    before.check()
