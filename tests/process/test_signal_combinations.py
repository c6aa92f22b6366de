"""Signals as supervisors, scripts and habits of gunicorn's send them: twice, to one worker, one after the other."""

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.harness import ServerProcess, fetch
from tests.harness.notes import Notes
from tests.harness.proxies import nginx
from tests.harness.server import REPOSITORY
from tests.process.rolling import hold, settle

pytestmark = pytest.mark.process

PROBE = "tests.apps.lifecycle.probe:app"
Start = Callable[..., ServerProcess]


def test_the_numbers_of_workers_after_ttou_winch_ttin_and_hup(server: Start) -> None:
    """One server, all of docs/signals.md in a row; a worker answers USR1, USR2 and HUP with nothing but its stacks.

    Fails without `parked` (one worker after HUP), and with `max(1, ...)` in on_scale (TTOU wakes a parked server).
    """
    running = server(PROBE, "--workers", "2", "--slow-callback", "0")
    for signum, said in (
        (signal.SIGTTOU, "scale complete: 1 worker serves"),
        (signal.SIGTTOU, "scale complete: 1 worker, as before"),
        (signal.SIGWINCH, "no worker serves, as told"),
        (signal.SIGTTOU, "scale complete: 0 workers, as before"),
        (signal.SIGTTIN, "scaling from 0 to 1 workers"),
    ):
        running.signal(signum)
        running.wait_log(said)
    (worker,) = settle(running, 1)
    for signum in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGUSR2):
        worker.kill(signum)
    assert running.fetch().status == 200
    assert running.workers() == [worker]
    running.signal(signal.SIGHUP)
    settle(running, 2, generation=2)
    assert running.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_to_the_process_and_to_its_group_is_one_stop(server: Start, signum: int, tmp_path: Path) -> None:
    """As timeout(1) sends it. The request under way is answered after TERM; nothing is killed after INT.

    Fails without ECHO in master.signals: the request is cancelled, and INT ends with exit code 6.
    """
    notes = Notes(tmp_path)
    running = server(PROBE, env=notes.env)
    with hold(running, "/slow?seconds=0.5") as slow:
        running.wait_for(lambda: "slow" in notes.lines, what="a request to be under way")
        os.kill(running.pid, signum)
        os.killpg(running.pid, signum)
        if signum == signal.SIGTERM:
            assert slow.read_response().status == 200
        assert running.wait_exit() == 0
    assert running.log.count("stopping (") == 1


@pytest.mark.external
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a proxy of another user")
def test_the_nginx_conf_of_deploy_reaches_a_socket_of_root(server: Start) -> None:
    """It runs as nobody. `umask` takes from the socket's mode, which a warning says.

    Fails without `socket_mode` (502: permission denied), and without _closed_socket in advice.
    """
    shipped = (REPOSITORY / "deploy/nginx.conf").read_text()
    with TemporaryDirectory(prefix="aserver-nginx-") as place:  # others may not enter pytest's directories
        directory, path = Path(place), Path(place, "app.sock")
        directory.chmod(0o777)
        http = shipped.replace("{", "{{").replace("}", "}}").replace("/run/aserver.sock", str(path))
        running = server(PROBE, bind=[f"unix:{path}"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o777
        assert "answers 502" not in running.log
        with nginx(directory, http.replace("listen 80", "listen 127.0.0.1:{port}"), uid=65534) as port:
            assert fetch(("127.0.0.1", port)).status == 200
        assert running.stop() == 0
        closed = server(PROBE, "--umask", "077", bind=[f"unix:{path}"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        closed.wait_log("has mode 0700, so only uid 0 may connect: a proxy of another user answers 502")
        assert closed.stop() == 0
