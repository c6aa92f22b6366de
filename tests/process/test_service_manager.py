"""systemd's side of a server (sd_notify(3), sd_listen_fds(3)), played by a datagram socket and by a wrapper that execs.

The real command and real clients; docs/systemd.md promises each of these.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness.client import RawConnection, fetch
from tests.harness.server import ServerProcess
from tests.harness.service_manager import FakeManager
from tests.harness.waiting import wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
APP = "tests.apps.raw:app"
STATES = "READY=1", "RELOADING=1", "STOPPING=1"
STATUS = "STATUS=serving: 2 of 2 workers serve, generation 2; reload complete: generation 2 serves with 2 workers"

#: What systemd does between fork(2) and execve(2): the descriptors from 3 on, and the variables that name them.
PASSING = """
import os, sys
names = dict(item.split("=", 1) for item in sys.argv[1].split(",") if item)
copies = [os.dup(int(fd)) for fd in names]
for number, copy in enumerate(copies, start=3):
    os.dup2(copy, number)
    os.set_inheritable(number, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names.values()))
os.execv(sys.executable, [sys.executable, "-m", "aserver", "run", *sys.argv[2:]])
"""


def with_descriptors(fds: Mapping[str, int], *words: str, environ: Mapping[str, str]) -> ServerProcess:
    """A server that is started with descriptors, by name, as a service manager passes them."""
    passed = ",".join(f"{fd}={name}" for name, fd in fds.items())
    argv = [sys.executable, "-c", PASSING, passed, *words]
    return ServerProcess(argv=argv, env=environ, pass_fds=list(fds.values()))


def test_a_life_under_a_service_manager(tmp_path: Path) -> None:
    """Ready, a reload, a refused reload, an upgrade, a watchdog, a stop. Fails without ServiceManager."""
    settings = tmp_path / "aserver.toml"
    settings.write_text("workers = 2\n")
    with (
        FakeManager() as manager,
        ServerProcess(
            APP,
            "--config",
            str(settings),
            env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "300000"},
        ) as server,
    ):
        manager.wait_for("READY=1")
        assert "all 2 workers are ready" in server.log
        manager.wait_for("WATCHDOG=1", times=3)
        server.signal(signal.SIGHUP)
        manager.wait_for("READY=1", times=2)
        assert "reload complete" in server.log, "told before the last worker was replaced"
        wait_for(
            lambda: any(line.startswith(STATUS) for line in manager.read()),
            what="a status",
            explain=lambda: str(manager.told),
        )
        settings.write_text("workers = 'many'\n")
        server.signal(signal.SIGHUP)
        manager.wait_for("READY=1", times=3)
        assert "refused" in server.log
        settings.write_text("workers = 2\n")
        server.signal(signal.SIGUSR2)
        server.wait_log("upgrade complete")
        server.terminate()
        assert server.wait_exit() == 0
        reload = ["RELOADING=1", "READY=1"]
        assert manager.told_of(*STATES) == ["READY=1", *reload, *reload, "READY=1", "STOPPING=1"]
        assert manager.told.count(f"MAINPID={server.pid}") == 4
        assert manager.stored == {}, "clients could go on to connect to a listener that nothing serves"


def test_a_killed_master_comes_back_on_the_same_sockets(tmp_path: Path) -> None:
    """A client that connects while no server lives is answered by the next one. Fails without ServiceManager.keep."""
    path = str(tmp_path / "a.sock")
    with FakeManager() as manager:
        environ = {"NOTIFY_SOCKET": manager.path}
        words = [APP, "--bind", f"unix:{path}"]
        with ServerProcess(*words[:1], "--bind", f"unix:{path}", env=environ) as first:
            manager.wait_for("READY=1")
            where = first.addresses[0].where
            assert isinstance(where, tuple)
            first.kill()
            first.wait_exit()
            first.wait_for(lambda: not first.family(), None, "its workers to end")
            waiting = [RawConnection(at) for at in (where, path)]
            for client in waiting:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(manager.stored) == 2
        words += ["--bind", f"{where[0]}:{where[1]}"]
        with with_descriptors(manager.stored, *words, environ=environ) as second:
            for client in waiting:
                with client:
                    assert client.read_response().status == 200
            assert fetch(where).status == 200
            assert second.stop() == 0
        assert os.listdir(tmp_path) == []


def test_sockets_are_taken_by_the_names_of_their_units(tmp_path: Path) -> None:
    """Each of a server's two sides by its name, with the other's in place, over a reload and an upgrade.

    Fails without `_named`, and with the admin endpoint's socket among those that replace `bind`.
    """
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in ("inner", "web")}
        fds = {name: sock.fileno() for name, sock in sockets.items()}
        for words in (["--bind", "fd://web"], []):
            with with_descriptors(fds, APP, *words, "--admin", "fd://inner", environ={}) as server:
                server.wait_log("the one worker is ready")
                if words:
                    server.signal(signal.SIGHUP)
                    server.wait_log("reload complete")
                    server.signal(signal.SIGUSR2)
                    server.wait_log("upgrade complete")
                assert [each.where for each in server.addresses] == [sockets["web"].getsockname()]
                for path, status in ("/livez", 200), ("/nothing", 404):
                    assert fetch(sockets["inner"].getsockname(), path).status == status
                assert fetch(sockets["web"].getsockname()).status == 200
                assert server.stop() == 0
        with with_descriptors(fds, APP, "--bind", "fd://wbe", environ={}) as server:
            assert server.wait_exit() == ExitCode.BIND
            assert (
                "cannot adopt fd://wbe: no socket of that name was passed; LISTEN_FDNAMES has inner, web" in server.log
            )


def test_a_supervisor_of_s6s_kind_is_told_by_a_line_when_all_workers_are_ready() -> None:
    """Once, though a reload and an upgrade follow; and no process holds the descriptor. Fails without `ReadyLines`."""
    reader, writer = os.pipe()
    with (
        open(reader, "rb") as told,
        ServerProcess(APP, "-w", "2", "--notify-fd", str(writer), pass_fds=[writer]) as server,
    ):
        os.close(writer)
        assert told.read() == b"\n"  # up to the end of file: the server has closed its end
        assert "all 2 workers are ready" in server.log
        for signum, what in (signal.SIGHUP, "reload complete"), (signal.SIGUSR2, "upgrade complete"):
            server.signal(signum)
            server.wait_log(what)
        assert server.stop() == 0
    with ServerProcess(APP, "--notify-fd", "99") as server:
        assert server.wait_exit() == ExitCode.CONFIG
        assert "notify_fd is 99, but the supervisor passed no such descriptor (Bad file descriptor)" in server.log


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_units_are_understood_and_expose_little(tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing but that the application of the example is not there; exposure <= 3."""
    for name in ("aserver.service", "aserver.socket"):
        text = (DEPLOY / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("/srv/app/.venv/bin/aserver", "/bin/true"), "utf-8")
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    checked = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(tmp_path / "aserver.service")]
    judged = subprocess.run(security, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-400:] + judged.stderr
