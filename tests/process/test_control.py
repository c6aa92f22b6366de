"""A running server is asked, and told what to do, by the real commands."""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from aserver.command.instances import Line
from aserver.metrics.families import FAMILIES
from tests.harness import PATIENCE, RawConnection, Terminal
from tests.harness.server import REPOSITORY
from tests.process.rolling import Site, Start, hold

pytestmark = pytest.mark.process

APP = "tests.apps.controlled:app"


#: `aserver status --control PATH` of another user.
STRANGER = """
import os, sys
from aserver.command import cli, operate
os.setuid(65534)
sys.argv = ["aserver", "status", "--control", sys.argv[1]]
cli.main()
"""


class Desk:
    """An operator: a runtime directory of their own, and the commands."""

    def __init__(self, runtime: Path) -> None:
        self.env = {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(runtime)}  # where other tests' servers are not

    def begin(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "aserver", *command],
            env=os.environ | self.env,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str) -> tuple[int, str, str]:
        process = self.begin(*command)
        out, err = process.communicate(timeout=2 * PATIENCE)
        return process.returncode, out, err

    def told(self, *command: str) -> list[dict[str, Any]]:
        """The JSON of a command that must succeed."""
        code, out, err = self.run(*command, "--json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    @property
    def path(self) -> Path:
        (path,) = Path(self.env["XDG_RUNTIME_DIR"]).glob("aserver-*.sock")
        return path

    def status(self) -> dict[str, Any]:
        """Of the only server, without a command: a test looks often."""
        with Line(str(self.path)) as line:
            return line.status()

    def metrics(self) -> dict[str, dict[str, float]]:
        """Values by family and by the label, if there is one."""
        with Line(str(self.path)) as line:
            families = line.ask("metrics")["metrics"]
        return {
            family["name"]: {
                next(iter(sample.get("labels", {}).values()), ""): sample.get("value", sample.get("count"))
                for sample in family["samples"]
            }
            for family in families
        }


@pytest.fixture
def desk() -> Iterator[Desk]:
    with tempfile.TemporaryDirectory(prefix="actl") as runtime:
        yield Desk(Path(runtime))


def test_trap_92_status_commands_and_events_through_reload_and_upgrade(server: Start, desk: Desk) -> None:
    """The same socket all the time. Fails with a listener that is not handed over, or records that are not."""
    running = server(APP, "--workers", "2", "--max-requests", "900", "--errorlog", "-", env=desk.env)
    path = desk.path
    assert path.name == f"aserver-{running.pid}.sock"
    inode = path.stat().st_ino
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    waiting = hold(running, "/wait")
    found = running.wait_for(
        lambda: (told := desk.status()) and sum(w["active"] for w in told["workers"]) == 1 and told, what="the request"
    )
    assert (found["pid"], found["phase"], found["workers_ready"], found["generation"]) == (running.pid, "serving", 2, 1)
    assert [worker["phase"] for worker in found["workers"]] == ["ready", "ready"]
    assert [limit["why"] for limit in found["workers"][0]["next_recycle"]] == ["max_requests"]
    assert all(worker["memory"] > 1 << 20 for worker in found["workers"])
    assert found["listeners"][0]["queue"] == 0
    waiting.close()
    families = desk.metrics()
    assert families.keys() <= FAMILIES.keys()
    assert families["aserver.workers"]["ready"] == 2
    assert families["aserver.listener.backlog"].popitem()[1] == 2048

    assert desk.run("status", "--ready")[:2] == (0, "2 of 2 workers serve\n")
    ended = desk.told("reload", "--wait")[-1]
    assert (ended["event"], ended["outcome"], ended["generation"]) == ("reload.ends", "complete", 2)
    upgrading = desk.begin("upgrade", "--wait", "--json")
    while upgrading.returncode is None:  # the image is exchanged meanwhile, and a question in that moment is answered
        assert desk.status()["pid"] == running.pid
        with suppress(subprocess.TimeoutExpired):
            upgrading.wait(0.2)
    ended = json.loads(upgrading.communicate(timeout=PATIENCE)[0].splitlines()[-1])
    assert (ended["event"], ended["outcome"], ended["generation"]) == ("upgrade.ends", "complete", 3)
    ended = desk.told("scale", "3", "--wait")[-1]
    assert ended["outcome"] == "complete"
    before = {worker["slot"]: worker["pid"] for worker in desk.status()["workers"] if worker["phase"] == "ready"}
    (reply,) = desk.told("recycle", "2")
    assert len(reply["serials"]) == 1
    running.wait_log(rf"pid {before[2]}\) has left")
    code, _, err = desk.run("recycle", "7")
    assert (code, "no worker has slot 7" in err) == (1, True)
    desk.told("reopen")
    running.wait_log("logs reopened")

    records = desk.told("events")
    numbers = [record["number"] for record in records]
    assert numbers == list(range(1, len(numbers) + 1)), "over an upgrade, too"
    assert [r["outcome"] for r in records if r["event"].endswith(".ends")] == ["complete"] * 3
    assert path.stat().st_ino == inode
    refused = running.fetch(f"/ask?{path}").text
    assert "one of this server's own" in refused
    text = desk.run("status")[1]
    assert re.search(r"3 of 3 serve, generation 3", text)
    assert re.search(r"last reload .*upgrade complete: generation 3 serves", text)
    said = subprocess.run([sys.executable, "-c", STRANGER, str(path)], capture_output=True, text=True, check=False)
    if os.geteuid() == 0:
        assert (said.returncode, f"no server answers at {path}: Permission denied" in said.stderr) == (2, True)
    code, out, _ = desk.run("stop")
    assert (code, out.splitlines()[-1]) == (0, "stopped")
    assert running.wait_exit() == 0
    assert not path.exists()
    code, _, err = desk.run("status")
    assert (code, "no running server of this user" in err) == (2, True)


def test_a_failed_reload_is_the_callers_to_read(server: Start, desk: Desk, tmp_path: Path) -> None:
    """The canary's traceback stands on the caller's terminal. Fails without the record's detail, or its outcome."""
    site = Site(tmp_path)
    running = server(site.target, *site.options, env=site.env | desk.env)
    site.deploy("broken", before='raise RuntimeError("no such database")')
    code, out, err = desk.run("reload", "--wait")
    assert code == 1
    assert "reload.begins" in out
    assert "reload failed: generation 2" in err
    assert "RuntimeError: no such database" in err
    assert 'raise RuntimeError("no such database")' in err
    found = desk.status()
    assert found["last_reload"]["outcome"] == "failed"
    assert (found["generation"], found["workers_ready"]) == (1, 1)
    assert running.stop() == 0


def test_status_where_three_servers_run(server: Start, desk: Desk) -> None:
    """Each is named, and one can be chosen, also one with a place of its own. Fails with the first that is found."""
    started = [server(APP, env=desk.env, ready=False) for _ in range(3)]
    for each in started:
        each.wait_ready()
    code, _, err = desk.run("status")
    assert code == 2
    for each in started:
        assert f"pid {each.pid}: {APP}, serving, " in err
    assert desk.told("status", "--pid", str(started[1].pid))[0]["pid"] == started[1].pid
    path = Path(desk.env["XDG_RUNTIME_DIR"], f"aserver-{started[2].pid}.sock")
    assert desk.told("status", "--control", str(path))[0]["pid"] == started[2].pid


def test_commands_during_boot_drain_and_stop(server: Start, desk: Desk) -> None:
    """A server that boots or drains answers what it waits for. Fails with answers from the workers."""
    running = server(APP, "--workers", "1", "--graceful-timeout", "60", env=desk.env, ready=False)
    running.wait_for(lambda: list(Path(desk.env["XDG_RUNTIME_DIR"]).glob("aserver-*.sock")), what="the socket")
    assert desk.status()["phase"] in ("booting", "serving")
    running.wait_ready()
    waiting = hold(running, "/wait")
    running.wait_for(lambda: desk.status()["workers"][0]["active"] == 1, what="the request")
    desk.told("reload", "--wait")
    (old,) = [worker for worker in desk.status()["workers"] if worker["generation"] == 1]
    assert old["phase"] == "draining"
    assert "its clients" in old["waits_for"]
    stopping = desk.begin("stop")
    running.wait_for(lambda: desk.status()["phase"] == "stopping", what="the stop to begin")
    assert "to leave" in desk.status()["waits_for"]
    code, _, err = desk.run("reload", "--wait")
    assert (code, "refused: the server is stopping" in err) == (1, True)
    assert desk.run("stop", "--now")[0] == 0
    stopping.communicate(timeout=PATIENCE)
    assert stopping.returncode == 0
    waiting.close()
    assert running.wait_exit() == 0


def test_requests_and_stacks_of_a_worker(server: Start, desk: Desk) -> None:
    """Of one that serves, and of one whose loop is blocked. Fails without Look, and without the trace."""
    patience = ("--header-timeout", "60", "--keep-alive", "60")
    running = server(APP, "--slow-callback", "0", "--hang-timeout", "0", *patience, env=desk.env)
    waiting = hold(running, "/wait?secret=1")
    running.wait_for(lambda: desk.status()["workers"][0]["active"] == 1, what="the request")

    def look() -> dict[str, Any]:
        ((worker,),) = (reply["workers"] for reply in desk.told("requests", "1"))
        return cast("dict[str, Any]", worker)

    # Compiled, a connection's deadline is set with the next tick of the worker's clock.
    running.wait_for(lambda: look()["clients"] == {"nothing": 1}, what="the client to owe nothing")
    (request,) = look()["requests"]
    assert request["request"] == "GET /wait"
    assert "clients that owe nothing: 1" in desk.run("requests", "1")[1]
    with RawConnection(running.where) as half, RawConnection(running.where) as idle:
        half.send(b"GET / HTTP/1.1\r\n")
        assert idle.request().status == 200
        owed = {"nothing": 1, "the rest of a request's head": 1, "another request": 1}
        running.wait_for(lambda: desk.status()["workers"][0]["clients"] == owed, what="the duties of all clients")
        line = re.search(r"^  clients +(.*)$", desk.run("status")[1], re.MULTILINE)
        assert line is not None
        assert sorted(line[1].split("; ")) == sorted(f"1 owe {each}" for each in owed)
    assert request["client"].startswith("127.0.0.1:")
    assert "controlled.py" in request["stack"]
    text = desk.run("stacks", "1")[1]
    assert re.search(r"request GET /wait of 127\.0\.0\.1:\d+, .*\n.*controlled.py", text)
    with Terminal() as terminal:
        command = terminal.attach([sys.executable, "-m", "aserver", "top"])
        top = subprocess.Popen(command, env=os.environ | desk.env, cwd=REPOSITORY, start_new_session=True)
        running.wait_for(lambda: b"controlled:app" in terminal.screen, what="the screen")
        terminal.press(b"e")
        running.wait_for(lambda: b"GET /wait" in terminal.screen, what="the answer to a key")
        terminal.press(b"q")
        assert top.wait(PATIENCE) == 0
    blocking = hold(running, "/block?600")

    def blocked() -> bool:
        with Line(str(desk.path)) as line:
            (seen,) = line.ask("stacks", slot=1)["workers"]
        return bool(seen["blocked"]) and "controlled.py" in str(seen["trace"])

    running.wait_for(blocked, what="the blocked loop")
    for client in (waiting, blocking):
        client.close()
    running.workers()[0].kill()
    assert running.stop() == 0
