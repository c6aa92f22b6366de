"""What a terminal, a supervisor or an operator sends to the whole group, at every moment of a process's life.

Each test starts the real command, most of them on a pseudoterminal. Each docstring says how the test was seen to fail.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from aserver.ipc.board import HalfLine
from tests.harness import PATIENCE, Load, Notes, Process, ServerProcess, Terminal, descendants, process
from tests.process.rolling import APP, Site, Start, hold, settle

pytestmark = pytest.mark.process

PROBE = "tests.apps.lifecycle.probe:app"
EARLY = Path(__file__).resolve().parent.parent / "apps/early_signals"
#: All of them end or stop a process that has said nothing about them (signal(7)).
TO_THE_GROUP = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGTTIN", "SIGTTOU")


def _command(*options: str) -> list[str]:
    return [*ServerProcess.command(PROBE), "--bind", "127.0.0.1:0", *options]


def _master(server: ServerProcess) -> Process:
    """The master of a server that runs as a job: its shell's child."""
    return next(each for each in descendants(server.pid) if each.parent == server.pid)


def _workers(server: ServerProcess) -> set[int]:
    master = _master(server).pid
    family = descendants(master)
    zygotes = {each.pid for each in family if each.parent == master}
    return {each.pid for each in family if each.parent in zygotes}


# ── the terminal ─────────────────────────────────────────────────────────────────────────────


def test_resizing_the_terminal_changes_nothing(server: Start) -> None:
    """Fails with WINCH obeyed under a terminal: it scales to no workers."""
    with Terminal() as terminal:
        running = server(argv=terminal.attach(_command("--workers", "2", "--log-level", "debug")))
        workers = {each.pid for each in running.workers()}
        with Load(running.where, connections=2) as load:
            for size in range(20, 23):
                terminal.resize(size, 80)
                running.wait_log("SIGWINCH is left aside", count=size - 19)
            load.wait_for_more(10)
        load.outcome.check()
        assert {each.pid for each in running.workers()} == workers
        assert "scaling" not in running.log
        assert running.stop() == 0


def test_without_a_terminal_winch_is_obeyed(server: Start) -> None:
    """The log says how to come back, and HUP does. Fails without the sentence."""
    running = server(PROBE)
    running.signal(signal.SIGWINCH)
    running.wait_log("SIGWINCH: all workers leave, the sockets stay; SIGTTIN or SIGHUP brings them back")
    running.wait_for(lambda: not running.workers(), what="the worker to leave")
    running.signal(signal.SIGHUP)
    settle(running, 1, generation=2)
    assert running.stop() == 0


@pytest.mark.parametrize(("key", "said"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
def test_a_key_that_ends_the_group_is_one_stop(server: Start, tmp_path: Path, key: bytes, said: str) -> None:
    """Workers and zygote leave it to the master. Fails with it in neither worker.main._PASSING nor the loop's."""
    notes = Notes(tmp_path)
    with Terminal() as terminal:
        running = server(argv=terminal.attach(_command("--lazy", "--workers", "2"), "foreground"), env=notes.env)
        terminal.press(key)
        assert running.wait_exit() == 0
        assert running.log.count(f"stopping ({said})") == 1
        assert running.log.count("has left") == 2
        assert len(notes.pids("atexit")) == 2
        assert "Traceback" not in running.log


def test_ctrl_z_and_fg(server: Start) -> None:
    """The whole job halts for longer than `hang_timeout` and goes on; its workers stay, and no request is lost.

    Fails with a hang clock that counts the time in which the master itself stood still.
    """
    with Terminal() as terminal:
        command = _command("--workers", "2", "--hang-timeout", "1", "--slow-callback", "0")
        running = server(argv=terminal.attach(command, "foreground"))
        master, workers = _master(running), _workers(running)
        terminal.press(b"\x1a")
        stopped = {master.pid, *workers}
        running.wait_for(
            lambda: {each.pid for each in running.family() if each.state == "T"} >= stopped, what="the job to halt"
        )
        with running.connect() as waiting:
            waiting.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            waiting.sock.settimeout(1.3)
            with pytest.raises(TimeoutError):
                waiting.sock.recv(1)
            os.killpg(master.pid, signal.SIGCONT)
            waiting.sock.settimeout(PATIENCE)
            assert waiting.read_response().status == 200
        assert _workers(running) == workers
        assert "event loop" not in running.log
        master.kill(signal.SIGTERM)
        assert running.wait_exit() == 0


@pytest.mark.parametrize("log", ["--errorlog", "--accesslog"])
def test_a_job_in_the_background_may_write_to_a_terminal_that_stops_those_who_do(server: Start, log: str) -> None:
    """The kernel sends TTOU to the whole group for each write (tty_check_change), unless it is blocked or ignored.

    Fails with handlers for it alone: the master's write is begun again for ever, and the workers halt.
    """
    with Terminal() as terminal:
        terminal.stop_background_output()
        options = ("--accesslog", "-") if log == "--accesslog" else ("--errorlog", "/dev/tty")
        running = server(argv=terminal.attach(_command(*options), "background"), ready=False)
        if log == "--errorlog":
            running.wait_for(lambda: b"is ready" in terminal.screen, what="the log on the terminal")
        else:
            running.wait_ready()
            assert running.fetch().status == 200
            running.wait_for(lambda: b'GET / HTTP/1.1" 200' in terminal.screen, what="the access line")
        assert "scaling" not in running.log
        _master(running).kill(signal.SIGTERM)
        assert running.wait_exit() == 0


def _board(server: ServerProcess) -> int:
    """Open a server's board."""
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        if link.readlink().name.startswith("memfd:aserver-board"):
            return os.open(link, os.O_RDONLY)
    raise AssertionError("the master has no board open")


def test_half_an_access_line_of_a_killed_worker_is_ended_before_the_next(server: Start) -> None:
    """On a terminal that is full, the worker that has half a line out is killed; its successor's line begins a line.

    Fails without `share_half_lines` in the zygote (nothing notes the half line), and without `half.get()` in Descriptor
    (the next line stands behind it).
    """
    with Terminal(watched=False) as terminal:
        running = server(argv=terminal.attach(_command("--accesslog", "-")))
        board = _board(running)
        half = HalfLine(board, 1)
        os.close(board)
        with running.connect() as client:
            for _ in range(200):  # 200 KB; a terminal of Linux keeps less than 70
                client.send(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"k" * 997))
                assert client.read_response().status == 200
        running.wait_for(half.get, what="half a line")
        (killed,) = running.workers()
        killed.kill()
        running.wait_for(lambda: killed not in running.workers() != [], what="a successor")
        assert running.fetch("/after").status == 200
        terminal.watch()
        running.wait_for(lambda: b"GET /after" in terminal.screen, what="the successor's line")
        *_, torn, after = terminal.screen.rstrip().split(b"\r\n")
        assert torn.count(b"kkk") < 350
        assert not torn.endswith(b'"')
        assert after.startswith(b"127.0.0.1 - - [")
        assert running.stop() == 0


def test_a_worker_in_the_background_that_reads_the_terminal_stops_nobody(server: Start, tmp_path: Path) -> None:
    """It gets EIO. Fails without SIG_IGN of TTIN: the kernel halts all workers, and the master scales up."""
    (tmp_path / "reader.py").write_text(
        "import os\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        try:\n            os.read(0, 1)\n"
        "        except OSError as error:\n            said = error.strerror.encode()\n"
        "        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "        await send({'type': 'http.response.body', 'body': said})\n"
    )
    with Terminal() as terminal:
        command = [*ServerProcess.command("reader:app"), "--bind", "127.0.0.1:0", "--app-dir", str(tmp_path)]
        running = server(argv=terminal.attach(command, "background"))
        assert running.fetch().body == b"Input/output error"
        assert "scaling" not in running.log
        _master(running).kill(signal.SIGTERM)
        assert running.wait_exit() == 0


def test_under_a_terminal_subprocesses_ignore_its_signals_to_background_jobs_alone(server: Start) -> None:
    """All else is at its default, and no signal blocked.

    Fails without unix.discard_signals in terminal.leave_to_master, and with it for every signal.
    """
    with Terminal() as terminal:
        running = server(argv=terminal.attach(_command()))
        status = json.loads(running.fetch("/child-signals").body)
        ignored = int(status["SigIgn"], 16)
        assert {number for number in range(1, 32) if ignored >> (number - 1) & 1} == {signal.SIGTTIN, signal.SIGTTOU}
        assert int(status["SigBlk"], 16) == 0
        assert running.stop() == 0


def test_a_terminal_that_hangs_up_leaves_the_service_running(server: Start, tmp_path: Path) -> None:
    """HUP comes to all of it, and is a reload to the master; what the app prints from then on hurts nobody.

    Fails with HUP's default in zygote or worker, and with standard streams that still lead to the dead terminal: print
    raises EIO, and the request is answered 500.
    """
    site = Site(tmp_path)
    (site.directory / "site_app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        print('asked', flush=True)\n"
        "        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "        await send({'type': 'http.response.body', 'body': b'ok'})\n"
    )
    with Terminal() as terminal:
        command = [*ServerProcess.command(site.target), *site.options, "--bind", "127.0.0.1:0", "--workers", "2"]
        running = server(argv=terminal.attach([*command, "--accesslog", "-"]), env=site.env)
        assert running.fetch().body == b"ok"
        terminal.hang_up()
        settle(running, 2, generation=2)
        assert running.fetch().body == b"ok"
        assert "from outside" not in running.log
        assert running.stop() == 0


# ── at every moment ──────────────────────────────────────────────────────────────────────────


def test_signals_to_the_group_before_a_child_has_its_handlers(server: Start, tmp_path: Path) -> None:
    """The zygote just after its exec, the child that runs a settings file, and an upgrade's preflight.

    Fails with an empty signal mask in master/handles.py, spawn (zygote, preflight), or in
    config/python_file.py, run_file.
    """
    conf = tmp_path / "conf.py"
    conf.write_text("workers = 2\n")
    path = f"{EARLY}{os.pathsep}{Path(__file__).resolve().parent.parent.parent}"
    running = server(APP, "--config", str(conf), env={"PYTHONPATH": path})
    assert "generation 1 has failed" not in running.log
    assert " died" not in running.log
    running.signal(signal.SIGHUP)
    settle(running, 2, generation=2)
    running.signal(signal.SIGUSR2)
    running.wait_log("goes on after the upgrade")
    settle(running, 2, generation=3)
    assert "refused" not in running.log
    assert running.stop() == 0


def test_a_supervisor_that_signals_the_whole_group(server: Start, tmp_path: Path) -> None:
    """As supervisord's stopasgroup and systemd's KillMode=control-group: the master's orders, once each.

    Fails with SIGUSR1 in neither worker.main._PASSING nor the loop's handlers: the workers end.
    """
    notes = Notes(tmp_path)
    running = server(PROBE, "--workers", "2", "--keep-alive", "0.5", env=notes.env)
    with Load(running.where, connections=4) as load:
        for number, said in (
            (signal.SIGHUP, "generation 2 serves"),
            (signal.SIGUSR1, "logs reopened"),
            (signal.SIGUSR2, "goes on after the upgrade"),
        ):
            os.killpg(running.pid, number)
            running.wait_log(said)
            load.wait_for_more(10)
        settle(running, 2, generation=3)
        for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
            os.killpg(running.pid, number)
            settle(running, count, generation=3)
    load.outcome.check()
    with hold(running, "/slow?seconds=0.3") as slow:
        running.wait_for(lambda: "slow" in notes.lines, what="a request to be under way")
        os.killpg(running.pid, signal.SIGTERM)
        assert slow.read_response().status == 200
    assert running.wait_exit() == 0
    assert running.log.count("stopping (SIGTERM)") == 1
    assert "from outside" not in running.log


def test_signals_to_the_group_while_a_worker_leaves(server: Start, tmp_path: Path) -> None:
    """Its exit hooks run to their end. Fails with the dispositions that the loop leaves behind."""
    (tmp_path / "leaver.py").write_text(
        "import atexit, os, signal\n"
        "@atexit.register\n"
        "def hook():\n"
        f"    for name in {TO_THE_GROUP!r}:\n"
        "        os.kill(os.getpid(), getattr(signal, name))\n"
        "    print('left in order', flush=True)\n"
        "async def app(scope, receive, send):\n"
        "    raise RuntimeError\n"
    )
    running = server("leaver:app", "--lazy", "--app-dir", str(tmp_path), "--workers", "2")
    assert running.stop() == 0
    assert running.log.count("left in order") == 2
    assert running.log.count("has left") == 2


def test_signals_to_a_master_that_has_just_stopped(server: Start) -> None:
    """An impatient Ctrl-C, or a supervisor's second TERM, changes neither its exit code nor its last word.

    Fails without `last`: the handlers have gone with the loop, and the signal ends it.
    """
    program = (
        "import atexit, os, signal\n"
        f"atexit.register(lambda: [os.kill(os.getpid(), getattr(signal, name)) for name in {TO_THE_GROUP!r}])\n"
        "from aserver.command.cli import main\n"
        "main()\n"
    )
    running = server(argv=[sys.executable, "-c", program, "run", PROBE, "--bind", "127.0.0.1:0"])
    assert running.stop() == 0
    assert running.log.splitlines()[-1].endswith("stopped")


def test_a_signal_to_a_master_that_has_just_written_its_pidfile(server: Start, tmp_path: Path) -> None:
    """logrotate reads the pidfile and sends USR1: it waits for the handlers. Fails with the default, which ends it."""
    pidfile = tmp_path / "pid"
    wrapper = (
        "import os, signal, sys\n"
        "import aserver.launch.run as launch\n"
        "real = launch.provide\n"
        "def provide(*arguments):\n"
        "    for name in ('SIGUSR1', 'SIGHUP', 'SIGTTIN'):\n"
        "        os.kill(os.getpid(), getattr(signal, name))\n"
        "    return real(*arguments)\n"
        "launch.provide = provide\n"
        "from aserver.command.cli import main\n"
        "main()\n"
    )
    argv = [sys.executable, "-c", wrapper, "run", PROBE, "--bind", "127.0.0.1:0", "--pidfile", str(pidfile)]
    running = server(argv=argv, ready=False)
    running.wait_log("logs reopened")
    running.wait_log("generation 2 serves")
    assert process(running.pid) is not None
    assert running.stop() == 0
