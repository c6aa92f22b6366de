"""The recipes in deploy/ for supervisord, runit and s6, under the real programs; `make supervisors`.

Each service is started, reloaded, robbed of its master by kill -9, stopped under load, and given broken code.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.client import RawConnection, fetch
from tests.harness.tools import require_tool
from tests.harness.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
COMMAND = f"{sys.executable} -m aserver"

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_SUPERVISORS"), reason="`make supervisors` runs it"),
    pytest.mark.timeout(90),
]

APP = """\
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun,", "more_body": True})
        if scope["path"] == "/slow":
            await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"done"})
"""
SUPERVISORD = """\
[supervisord]
nodaemon=true
user=root
logfile={home}/supervisord.log
pidfile={home}/supervisord.pid
[unix_http_server]
file={home}/ctl
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{home}/ctl
"""


class Supervisor:
    """A supervisor with one service, which is down at first. `command` is the supervisor's."""

    command: list[str]

    def __init__(self, home: Path) -> None:
        self.home, self.service = home, home / "service"
        self.path, self.log_file = str(home / "a.sock"), home / "log"
        self.log_file.touch()
        (home / "app.py").write_text(APP, "utf-8")

    def start(self) -> None:
        """Returns when the supervisor believes that the service is ready."""
        raise NotImplementedError

    def try_to_start(self) -> None:
        """As `start`, for a service that will not become ready."""
        raise NotImplementedError

    def reload(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Returns when the supervisor believes that the service is down."""
        raise NotImplementedError

    def gave_up(self) -> bool:
        """Whether it will not start the service, which has ended, again."""
        raise NotImplementedError

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def recipe(self, source: Path, changes: dict[str, str]) -> str:
        """A file of deploy/ for this application, this folder and this user; each change of `changes` once at most."""
        text = source.read_text("utf-8")
        for before, after in {
            "app:asgi --workers auto": "app:app --workers 2",
            "/srv/app/.venv/bin/aserver": COMMAND,
            ".venv/bin/aserver": COMMAND,
            "/srv/app": str(self.home),
            "exec 2>&1": f"exec >>{self.log_file} 2>&1",
            **changes,
        }.items():
            text = text.replace(before, after)
        return text

    def write_service(self, source: Path, changes: dict[str, str]) -> None:
        """A service directory, as runit and s6 have it."""
        changes["app:asgi --workers auto"] = f"app:app --workers 2 --bind unix:{self.path}"
        self.service.mkdir()
        for file in source.iterdir():
            place = self.service / file.name
            place.write_text(self.recipe(file, changes), "utf-8")
            place.chmod(file.stat().st_mode)
        (self.service / "down").touch()

    def call(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self.log}"
        return done.stdout


class Supervisord(Supervisor):
    """It is told of readiness by nothing but the time that the server has lived."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        changes = {"user=app\n": "autostart=false\n", "tcp://127.0.0.1:8000": f"unix://{self.path}"}
        changes |= {"/var/log/aserver.log": str(self.log_file), "startsecs=5": "startsecs=3"}
        text = SUPERVISORD.format(home=home) + self.recipe(DEPLOY / "supervisord.conf", changes)
        (home / "supervisord.conf").write_text(text, "utf-8")
        self.command = [require_tool("supervisord"), "-c", str(home / "supervisord.conf")]

    def _ask(self, *words: str) -> str:
        return self.call("supervisorctl", "-c", self.command[-1], *words)

    def start(self) -> None:
        wait_for((self.home / "ctl").exists, what="supervisord")
        self._ask("start", "aserver:aserver")

    def try_to_start(self) -> None:
        command = ["supervisorctl", "-c", self.command[-1], "start", "aserver:aserver"]
        subprocess.run(command, capture_output=True, timeout=60, check=False)

    def reload(self) -> None:
        self._ask("signal", "HUP", "aserver:aserver")

    def stop(self) -> None:
        self._ask("stop", "aserver:aserver")

    def gave_up(self) -> bool:
        status = self.call("sh", "-c", f"supervisorctl -c {self.command[-1]} status || true")
        return (
            "FATAL" in status or "EXITED" in status
        )  # before `startsecs` it tries some times; after it, the code decides


class Runit(Supervisor):
    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.write_service(
            DEPLOY / "runit",
            {"/run/aserver": str(home / "control"), " && chown app": " && true", "chpst -u app ": ""},
        )
        self.command = [require_tool("runsv"), str(self.service)]

    def start(self) -> None:
        wait_for((self.service / "supervise" / "ok").exists, what="runsv")
        self.call("sv", "-w", "30", "start", str(self.service))

    def try_to_start(self) -> None:
        self.call("sv", "up", str(self.service))

    def reload(self) -> None:
        self.call("sv", "reload", str(self.service))

    def stop(self) -> None:
        self.call("sv", "-w", "50", "stop", str(self.service))

    def gave_up(self) -> bool:
        status = self.call("sh", "-c", f"sv status {self.service} || true")
        return status.startswith("down:") and "want up" not in status


class S6(Supervisor):
    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.write_service(DEPLOY / "s6", {"s6-setuidgid app ": ""})
        self.command = [require_tool("s6-supervise"), str(self.service)]

    def start(self) -> None:
        wait_for((self.service / "supervise" / "control").exists, what="s6-supervise")
        self.call("s6-svc", "-wU", "-T", "30000", "-u", str(self.service))

    def try_to_start(self) -> None:
        self.call("s6-svc", "-u", str(self.service))

    def reload(self) -> None:
        self.call("s6-svc", "-h", str(self.service))

    def stop(self) -> None:
        self.call("s6-svc", "-wD", "-T", "50000", "-d", str(self.service))

    def gave_up(self) -> bool:
        return self.call("s6-svstat", "-o", "up,wantedup", str(self.service)).split() == ["false", "false"]


@contextmanager
def supervised(kind: type[Supervisor]) -> Iterator[tuple[Supervisor, subprocess.Popen[bytes]]]:
    """A supervisor of that kind; it and its service are ended with the block."""
    with tempfile.TemporaryDirectory(prefix="aserver-") as home:
        supervisor = kind(Path(home))
        environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        with (Path(home) / "supervisor.log").open("wb") as file:
            process = subprocess.Popen(
                supervisor.command, stdout=file, stderr=file, env=environ, start_new_session=True
            )
        try:
            yield supervisor, process
        finally:
            family = processes.descendants(process.pid)
            process.kill()
            for each in family:
                each.kill()
            process.wait()


@pytest.mark.parametrize("kind", [Supervisord, Runit, S6])
def test_a_life_under_the_recipe(kind: type[Supervisor]) -> None:
    """runit and s6 wait for READY. Fails without `check`, `notification-fd`, the exit codes that end the trying."""
    with supervised(kind) as (service, process):

        def masters() -> list[processes.Process]:
            return [each for each in processes.descendants(process.pid) if each.parent == process.pid]

        service.start()
        if kind is not Supervisord:
            assert "all 2 workers are ready" in service.log
        wait_for(lambda: "all 2 workers are ready" in service.log, what="a server", explain=lambda: service.log)
        assert fetch(service.path).body == b"begun,done"
        service.reload()
        wait_for(lambda: "reload complete" in service.log, what="the reload", explain=lambda: service.log)
        (master,) = masters()
        master.kill()
        if kind is Supervisord:  # which holds the socket, so that nobody is refused
            assert fetch(service.path).body == b"begun,done"
        wait_for(lambda: service.log.count("are ready") == 2, what="another server", explain=lambda: service.log)
        with RawConnection(service.path) as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_head()
            service.stop()
            assert b"done" in client.read_to_end()
        assert (service.log.count("stopped"), masters()) == (1, [])
        (service.home / "app.py").write_text("import nowhere\n", "utf-8")
        service.try_to_start()
        wait_for(service.gave_up, 60, what="the supervisor to give up", explain=lambda: service.log)
