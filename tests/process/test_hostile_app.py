"""The application's code, as nobody, against the root master: the master survives, names the culprit, replaces it.

Meanwhile other clients ask on and lose nothing. Each test says how it was seen to fail; docs/security.md has the
threat. These tests need root, as CI has it.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import ClosedEarlyError, Load, Process, ServerProcess, fetch, process

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only a root master has rights that the application lacks"),
    pytest.mark.usefixtures("open_tree"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
]

APP = "tests.apps.hostile:app"
Start = Callable[..., ServerProcess]


def descriptors(running: ServerProcess) -> int:
    master = process(running.pid)
    assert master is not None
    return len(master.descriptors())


def attack(running: ServerProcess, name: str) -> int:
    """Have one worker do it; its pid."""
    answer = running.fetch(f"/attack/{name}")
    assert answer.status == 200, answer
    return int(answer.body)


def still_works(running: ServerProcess) -> None:
    """The master hears, reloads, and ends in order."""
    running.signal(signal.SIGTTIN)
    running.wait_log("scaling from 2 to 3 workers")
    running.signal(signal.SIGHUP)
    running.wait_log("generation 2 serves")
    assert "Traceback" not in running.log
    assert running.stop() == 0


def test_the_board_cannot_be_cut_and_nonsense_on_it_harms_nobody(server: Start) -> None:
    """ftruncate(2) of the board by a worker, then all its cells overwritten and 3 MB of stacks in the trace that were
    never; the worker aborts, so that they are read. Fails without the seals, without the bounds in `Board.used`
    and `read_trace`, and without `printable`.
    """
    running = server(APP, "--user", "nobody", "--workers", "2")
    attack(running, "board")
    for _ in range(2):
        with pytest.raises((ClosedEarlyError, ConnectionResetError)):
            running.fetch("/attack/scribble")
    running.wait_log("crashed with SIGABRT", count=2)
    running.wait_log("is ready after", count=4)
    assert "\x1b" not in running.log
    assert running.log.count(" stacks before these are left out]") == 2
    assert running.log.count("in _scribble") == 2, "the end of each is told all the same"
    assert running.fetch("/").status == 200
    still_works(running)


#: Attacks by a worker on its channel, and what the log says of each.
BREACHES = {
    "flood": r"(it has sent \d+ messages, and can have had \d+ to send|RecycleAsked about serial 1, but it is \d)",
    "descriptors": "more descriptors came than belong to any message",
    "exited": "a message that this aserver does not know: Invalid value 'Exited'",
    "garbage": "a message",
    "long": "a message of 2147483648 bytes arrived",
    "stranger": "Ready about serial 4711",
}


def test_a_worker_that_breaks_the_protocol_is_named_and_replaced_and_costs_no_request(server: Start) -> None:
    """Clients of all workers, its own too, ask on. Fails with a channel that is merely not read any more (no
    replacement), with a kill in `on_breached` (its clients' requests are lost), and, for the flood, without `count`.
    """
    running = server(APP, "--user", "nobody", "--workers", "2")
    before = descriptors(running)
    with Load(running.where, connections=4) as alone, Load(running.where, keep_alive=False, connections=2) as each:
        for name, said in BREACHES.items():
            alone.wait_for_more(20)
            culprit = attack(running, name)
            who = rf"worker \d \(generation 1, pid {culprit}\)"
            running.wait_log(
                rf"ERROR.*{who}: it broke the protocol: .*{said}.*"
                "; nothing that it says counts any more; it serves until its replacement does"
            )
            running.wait_log(rf"{who} has left after")
        alone.wait_for_more(20)
        each.wait_for_more(20)
    alone.outcome.check()
    each.outcome.check()
    running.wait_for(lambda: descriptors(running) <= before, what=f"no more descriptors than {before} in the master")
    still_works(running)


def test_text_of_the_application_does_not_reach_the_terminal_as_it_is(server: Start) -> None:
    """The reason of a worker that asks to be recycled. Fails without `clean`."""
    running = server(APP, "--user", "nobody", "--workers", "2", "--min-lifetime", "0")
    attack(running, "terminal")
    running.wait_log(r"is due: \\x1b\]0;owned\\x07\\r")
    assert "\x1b" not in running.log
    assert len(max(running.log.splitlines(), key=len)) < 3000


def test_a_log_that_is_made_blocking_and_full_does_not_hold_the_master(server: Start, tmp_path: Path) -> None:
    """The description of a pipe's writing end is shared with all to whom it is passed, and with it O_NONBLOCK. Whether
    workers and zygotes are held is their affair; they are ended. Fails with `os.dup` for the master's own descriptor.
    """
    fifo, path = tmp_path / "error.fifo", tmp_path / "a.sock"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    short = ("--graceful-timeout", "0.5", "--lifespan-shutdown-timeout", "0.5")
    running = server(APP, "--user", "nobody", "--errorlog", str(fifo), *short, bind=[f"unix:{path}"], ready=False)
    running.wait_for(path.exists, what="the socket")
    assert fetch(str(path), "/attack/log").status == 200
    for number in (signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):  # each is worth a line
        running.signal(number)
    running.terminate()
    assert running.wait_exit() in (ExitCode.OK, ExitCode.KILLED)
    os.close(reader)


def test_half_a_message_hinders_neither_a_reload_nor_an_upgrade(server: Start) -> None:
    """Fails without the patience in `_do_upgrade`: it waits for ever."""
    running = server(APP, "--user", "nobody", "--workers", "2")
    attack(running, "half")
    running.signal(signal.SIGHUP)
    running.wait_log("generation 2 serves")
    running.wait_log("has left after", count=2)
    culprit = attack(running, "half")
    with Load(running.where) as load:
        running.signal(signal.SIGUSR2)
        running.wait_log(
            rf"pid {culprit}\): it broke the protocol: half a message for 5 s, and an upgrade waits for it"
        )
        running.wait_log("goes on after the upgrade")
        running.wait_log("generation 3 serves")
        running.wait_log(rf"pid {culprit}\) has left after")
        load.wait_for_more(20)
    load.outcome.check()
    assert running.stop() == 0


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of root's, which nobody may not signal."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as made:
        yield made
        assert made.poll() is None, "the victim was ended"
        made.communicate(b"\n")


@pytest.fixture
def orders() -> Iterator[Path]:
    """Where nobody may take them; pytest's own directories are root's."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o777)
        yield Path(made)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pidfd", r"a pidfd of process \d+, which is not the process \d+ that it names"),
        ("pidfd and pid", r"a pidfd of process \d+, which is no child of that zygote"),
        ("no pidfd", "Forked without a pidfd, and this system has them"),
    ],
)
def test_a_zygote_that_lies_about_a_fork_is_named_and_replaced_and_its_victim_lives(
    server: Start, orders: Path, victim: "subprocess.Popen[bytes]", name: str, said: str
) -> None:
    """It passes a pidfd of a process of root's, which root would end with the worker, or none, so that the worker could
    not be ended at all. The next zygote is honest, and serves. Fails without `check_process`: at the stop the victim is
    signalled.
    """
    (orders / name).mkdir()
    env = {"HOSTILE_ORDERS": str(orders), "HOSTILE_VICTIM": str(victim.pid)}
    running = server(APP, "--user", "nobody", "--workers", "2", env=env)
    running.wait_log(rf"ERROR.*the zygote of generation 1 \(pid \d+\) broke the protocol: {said}; it is killed")
    assert running.fetch("/").status == 200
    running.wait_for(lambda: len(_workers(running)) == 2, what="the worker of the lying zygote to leave")
    still_works(running)


def _workers(running: ServerProcess) -> list[Process]:
    """Also such as have lost their zygote."""
    return [each for each in running.family() if ": worker " in each.title]


@pytest.mark.parametrize(
    ("name", "said"),
    [("garbage", "a message"), ("out of turn", "ForkFailed for serial 1, which it was not told to fork")],
)
def test_a_zygote_that_breaks_the_protocol_while_it_loads_fails_its_generation_only(
    server: Start, orders: Path, name: str, said: str
) -> None:
    """A reload with it fails, and the old generation serves on; ForkFailed about a living worker of another generation
    had it forgotten, so that no stop ended. Fails without `ordered`.
    """
    running = server(APP, "--user", "nobody", "--workers", "2", env={"HOSTILE_ORDERS": str(orders)})
    (orders / name).mkdir()
    with Load(running.where) as load:
        running.signal(signal.SIGHUP)
        running.wait_log(rf"ERROR.*the zygote of generation 2 \(pid \d+\) broke the protocol: .*{said}.*; it is killed")
        running.wait_log("reload failed: generation 2: the zygote of generation 2 broke the protocol and was killed")
        load.wait_for_more(20)
        running.signal(signal.SIGHUP)
        running.wait_log("generation 3 serves")
        load.wait_for_more(20)
    load.outcome.check()
    assert running.stop() == 0
