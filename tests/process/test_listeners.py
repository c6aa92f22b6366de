"""Listeners of the real server: every kind serves, is refused with a reason, and is given back."""

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import ServerProcess
from tests.harness.client import fetch
from tests.harness.tools import has_ipv6, require_tool

pytestmark = pytest.mark.process

APP = "aserver.command.demo:app"
Start = Callable[..., ServerProcess]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_every_kind_of_address_serves_and_is_logged(server: Start, path: Path) -> None:
    binds = ["127.0.0.1:0", f"unix:{path}"]
    binds += ["[::1]:0"] if has_ipv6() else []
    binds += [f"unix:@aserver-{path.parent.name}-{id(path)}"] if sys.platform == "linux" else []
    running = server(APP, "--workers", "2", bind=binds)
    assert len(running.addresses) == len(binds)
    for address in running.addresses:
        assert fetch(address.where, "/hello").body == b"Hello, world!\n", address
    assert running.stop() == ExitCode.OK


def test_a_unix_path_has_its_mode_comes_back_when_deleted_and_is_removed_at_the_end(server: Start, path: Path) -> None:
    running = server(APP, "--uds-mode", "0660", bind=[f"unix:{path}"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    path.unlink()
    running.wait_for(path.exists, what="the deleted path to come back")
    running.wait_log("was deleted by somebody; it is back")
    assert fetch(str(path), "/hello").status == 200
    assert running.stop() == ExitCode.OK
    assert names(path.parent) == []


def test_an_application_is_told_the_path_that_was_bound(server: Start, path: Path) -> None:
    """Seen: `.a.sock~`, the name under which the socket is prepared. Fails without the listener's name in Endpoint."""
    running = server("tests.apps.connection:app", bind=[f"unix:{path}"])
    assert json.loads(fetch(str(path), "/").body)["server"] == [str(path), None]
    assert running.stop() == ExitCode.OK


def test_trap_54_a_live_path_is_refused_and_goes_on_serving(server: Start, path: Path) -> None:
    first = server(APP, bind=[f"unix:{path}"])
    second = server(APP, bind=[f"unix:{path}"], ready=False)
    assert second.wait_exit() == ExitCode.BIND
    assert f"unix:{path}: a server is already running there, pid " in second.log
    assert fetch(str(path), "/hello").status == 200
    assert first.stop() == ExitCode.OK


def test_trap_54_the_path_of_a_killed_server_is_taken_over(server: Start, path: Path) -> None:
    first = server(APP, bind=[f"unix:{path}"])
    first.kill()
    first.wait_exit()
    first.wait_for(lambda: not first.family(), what="the orphans to leave")
    assert path.is_socket()
    second = server(APP, bind=[f"unix:{path}"])
    assert fetch(str(path), "/hello").status == 200
    assert second.stop() == ExitCode.OK
    assert names(path.parent) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_port_in_use_names_its_server(server: Start) -> None:
    first = server(APP)
    port = first.where[1]
    second = server(APP, bind=[f"127.0.0.1:{port}"], ready=False)
    assert second.wait_exit() == ExitCode.BIND
    assert f"port {port} on 127.0.0.1 is in use by pid {first.pid} (" in second.log
    assert first.fetch("/hello").status == 200


# Does what systemd and other supervisors do: bind, put the socket at descriptor 3, exec (which keeps the pid).
SUPERVISOR = """
import os, socket, sys
sock = socket.create_server(("127.0.0.1", 0)) if sys.argv[1] == "tcp" else socket.socket(socket.AF_UNIX)
if sys.argv[1] != "tcp":
    sock.bind(sys.argv[1])
    sock.listen()
os.dup2(sock.fileno(), 3) if sock.fileno() != 3 else os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, "-m", "aserver", "run", *sys.argv[2:]])
"""


def test_a_socket_from_systemd_is_served_and_its_path_never_removed(server: Start, path: Path) -> None:
    """In the place of `bind`, which is told if somebody has set it."""
    argv = [sys.executable, "-c", SUPERVISOR, str(path), APP, "--bind", "127.0.0.1:0"]
    running = server(argv=argv, target="")
    assert fetch(str(path), "/hello").status == 200
    assert "bind (command line, --bind) is not used: systemd passed sockets" in running.log
    assert "127.0.0.1" not in running.log
    assert f"fd://3 web (unix:{path})" in running.log
    assert running.stop() == ExitCode.OK
    assert names(path.parent) == ["a.sock"]


def test_an_inherited_descriptor_is_served(server: Start) -> None:
    running = server(argv=[sys.executable, "-c", SUPERVISOR, "tcp", APP, "--bind", "fd://3"], target="")
    assert running.fetch("/hello").status == 200
    assert "fd://3 (http://127.0.0.1:" in running.log
    assert "is not used" not in running.log


@pytest.mark.external
def test_the_queue_has_the_configured_length_after_all_workers_started(server: Start) -> None:
    running = server(APP, "--workers", "2", "--backlog", "123")
    command = [require_tool("ss"), "-Hltn", f"sport = :{running.where[1]}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.split()[2] == "123", shown


def test_trap_50_the_service_managers_variables_do_not_reach_the_app(server: Start) -> None:
    """Fails with the whole of os.environ in programs.spawn_program."""
    plumbing = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "LISTEN_FDNAMES": "x"}
    running = server("tests.apps.lifecycle.probe:app", env=plumbing | {"KEPT": "yes"})
    environ = json.loads(running.fetch("/state").body)["environ"]  # not of /proc: `ps` titles are written over it
    assert environ["KEPT"] == "yes"
    assert not plumbing.keys() & environ.keys()
