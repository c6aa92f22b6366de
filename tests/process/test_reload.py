"""Reload (SIGHUP): new code and settings come as a new generation, which has to work before anything old is touched.

Each docstring says how the test was seen to fail.
"""

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from aserver.unix import LINUX
from tests.harness import Load, Notes, RawConnection, ServerProcess, fetch, free_port
from tests.process.rolling import APP, LONG, Site, Start, hold, ready_pids, settle, variant

pytestmark = pytest.mark.process


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _reload(server: ServerProcess, said: str, *, start: int = 0) -> None:
    server.signal(signal.SIGHUP)
    server.wait_log(said, start=start)


def _settings(path: Path, **values: object) -> None:
    """Write a TOML file."""
    path.write_text("".join(f"{name} = {value!r}\n".replace("'", '"') for name, value in values.items()))


# ── new code ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["--preload", pytest.param("--lazy", marks=variant)])
def test_trap_42_and_45_new_code_serves_after_a_reload_and_nobody_notices(server: Start, mode: str, site: Site) -> None:
    """With one worker too, preloaded or not. Fails with a zygote that is forked instead of exec'd (the old code)."""
    running = server(site.target, *site.options, mode, env=site.env)
    with Load(running.where, connections=8) as load:
        site.deploy("two")
        _reload(running, "generation 2 serves")
        settle(running, 1, generation=2)
        load.wait_for_more(50)
        running.wait_for(lambda: running.fetch().text == "two", what="the new code")
        running.wait_log(r"reload complete: generation 2 serves with 1 worker, \d+\.\d s")
    load.outcome.check()
    assert set(load.outcome.bodies) == {b"one", b"two"}
    running.wait_for(lambda: len(running.zygotes()) == 1, what="the old zygote to go")
    assert running.stop() == 0


BROKEN = {
    "raises at import": ({"before": 'raise RuntimeError("no such database")'}, "RuntimeError: no such database"),
    "does not parse": ({"before": "def"}, "SyntaxError"),
    "lacks a module": ({"before": "import there_is_no_such_module"}, "there_is_no_such_module"),
    "fails in lifespan": (
        {"startup": 'return await send({"type": "lifespan.startup.failed", "message": "no queue"})'},
        "no queue",
    ),
    "dies in lifespan": ({"startup": "os._exit(9)"}, "exit code 9"),
}
#: These take `boot_timeout` each. test_trap_36_boot_timeout has a lifespan that hangs without blocking the loop, too.
HANGING = {
    "blocks in lifespan": ({"startup": "time.sleep(3600)"}, "was not ready within 5 s"),
    "hangs at import": ({"before": "time.sleep(3600)"}, r"line \d+ in <module>"),
}
if LONG:
    HANGING["hangs in lifespan"] = ({"startup": "await asyncio.sleep(3600)"}, "was not ready within 5 s")


@pytest.mark.parametrize("deploys", [BROKEN, HANGING], ids=["fails", "hangs"])
def test_trap_41_a_broken_deploy_leaves_the_old_generation_as_it_was(
    server: Start, site: Site, deploys: dict[str, tuple[dict[str, str], str]]
) -> None:
    """The same workers serve on, the log says why, and what is repaired comes with the next reload.

    Fails with generations.promote in on_loaded: the old ones are told to drain.
    """
    limits = ("--boot-timeout", "5", "--lifespan", "on", "--lifespan-shutdown-timeout", "0.2")
    running = server(site.target, *site.options, "--workers", "2", *limits, env=site.env)
    before = {each.pid for each in running.workers()}
    number = 1
    with Load(running.where) as load:
        for how, (deploy, reason) in deploys.items():
            site.deploy(how, **deploy)
            start, number = len(running.log), number + 1
            _reload(running, f"reload failed: generation {number}: ", start=start)
            running.wait_log(reason, start=start)
            running.wait_log(r"generation 1 stays \(2 of 2 workers serve\)", start=start)
            running.wait_for(lambda: {each.pid for each in running.workers()} == before, what="the canary to go")
        load.wait_for_more(50)
    load.outcome.check()
    assert set(load.outcome.bodies) == {b"one"}
    site.deploy("repaired")
    number += 1
    _reload(running, f"generation {number} serves")
    settle(running, 2, generation=number)
    assert running.fetch().text == "repaired"
    assert running.stop() == 0


def test_canary_time_a_canary_that_dies_young_ends_the_reload(server: Start, site: Site) -> None:
    """It serves, and dies before canary_time is over; nobody else was touched. Fails with canary_time 0."""
    running = server(site.target, *site.options, "--workers", "2", "--canary-time", "5", env=site.env)
    before = {each.pid for each in running.workers()}
    dies = "asyncio.get_running_loop().call_later(0.3, os._exit, 41)"
    site.deploy("two", startup=dies)
    _reload(running, r"reload failed: generation 2: worker 1 \(.*\) ended with exit code 41")
    running.wait_for(lambda: {each.pid for each in running.workers()} == before, what="the old ones alone")
    assert running.stop() == 0


@variant
def test_canary_time_is_waited_for(server: Start, site: Site) -> None:
    """Both generations answer meanwhile, three workers in all. Fails as above."""
    running = server(site.target, *site.options, "--workers", "2", "--canary-time", "1", env=site.env)
    site.deploy("two")
    _reload(running, r"generation 2, pid \d+\) is ready")
    assert "generation 2 serves" not in running.log
    assert len(running.workers()) == 3
    running.wait_log("generation 2 serves")
    settle(running, 2, generation=2)
    assert running.stop() == 0


# ── orders that cross ────────────────────────────────────────────────────────────────────────


def test_trap_44_ten_reloads_in_a_second_are_at_most_two(server: Start, site: Site) -> None:
    """And the last deploy is the one that serves. Fails with RELOAD_SPACING 0 and no wait for the candidate."""
    running = server(site.target, *site.options, "--workers", "2", env=site.env)
    began = time.monotonic()
    for number in range(10):
        site.deploy(f"version {number}")
        running.signal(signal.SIGHUP)
        # Signals of one kind merge while they are pending: each is seen to arrive before the next is sent.
        running.wait_for(lambda: _hups_pending(running) == 0, what="the signal to be taken")
        later = began + 0.1 * (number + 1)
        running.wait_for(lambda later=later: time.monotonic() > later, what="a tenth of a second")  # type: ignore[misc]
    took = time.monotonic() - began
    running.wait_for(lambda: running.fetch().text == "version 9", what="the last deploy to serve")
    begun = running.log.count("reload (SIGHUP): generation")
    assert 1 <= begun <= 1 + took, f"{begun} reloads in {took:.1f} s"  # one more than whole seconds, so 2 in one
    settle(running, 2, generation=1 + begun)
    assert running.stop() == 0


def _hups_pending(server: ServerProcess) -> int:
    found = 0
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith(("SigPnd:", "ShdPnd:")):
            found |= int(line.split()[1], 16) & 1 << signal.SIGHUP - 1
    return found


def test_trap_33_workers_that_drain_are_not_replaced_again(server: Start, tmp_path: Path) -> None:
    """Four reloads while each worker is held by a slow request: never more than workers + max_surge processes.

    Fails without `live < target + surge` in Model.can_fork: twelve workers, as in the prototype.
    """
    notes, gate = Notes(tmp_path), tmp_path / "gate"
    running = server(APP, "--workers", "2", env=notes.env)
    held: list[RawConnection] = []
    most = 0

    def reached(generation: int) -> bool:
        nonlocal most
        most = max(most, len(running.workers()))
        return f"generation {generation} starts" in running.log

    for generation in (2, 3, 4, 5):
        held += [hold(running, f"/gate?file={gate}") for _ in range(2)]
        running.signal(signal.SIGHUP)
        if generation < 4:  # from then on the pool is full of draining ones, and the canary waits
            running.wait_for(lambda number=generation: reached(number), what=f"generation {generation}")  # type: ignore[misc]
    running.wait_for(lambda: reached(3) and len(running.workers()) >= 3, what="the pool to be full")
    assert running.fetch().status == 200
    gate.touch()
    for connection in held:
        assert connection.read_response().status == 200
        connection.close()
    last = 1 + running.log.count("reload (SIGHUP): generation")
    running.wait_for(lambda: reached(last), what="the last reload")
    last = 1 + running.log.count("reload (SIGHUP): generation")
    settle(running, 2, generation=last)
    assert most <= 3, f"{most} workers at once"
    assert running.stop() == 0


def test_trap_40_scaling_during_a_reload_counts(server: Start, tmp_path: Path) -> None:
    """TTIN, TTIN, TTOU while the new generation imports: one more than before, all of them new.

    Fails without `target - target_before` in generations._target_after.
    """
    notes = Notes(tmp_path)
    running = server(APP, "--workers", "2", env=notes.env | {"IMPORT_SECONDS": "0.5"})
    running.signal(signal.SIGHUP)
    running.wait_for(lambda: len(notes.of("import")) == 2, what="the new generation to import")
    for number, said in ((signal.SIGTTIN, "2 to 3"), (signal.SIGTTIN, "3 to 4"), (signal.SIGTTOU, "4 to 3")):
        running.signal(number)
        running.wait_log(f"scaling from {said} workers")
    assert "generation 2 serves" not in running.log, "the premise: the reload was under way"
    running.wait_log("generation 2 serves")
    settle(running, 3, generation=2)
    assert running.stop() == 0


@pytest.mark.parametrize("stage", [pytest.param("while it imports", marks=variant), "while its canary boots"])
def test_a_stop_during_a_reload(server: Start, stage: str, site: Site, tmp_path: Path) -> None:
    """At once and in order. Fails with a master that waits for the reload (ten minutes here)."""
    notes = Notes(tmp_path)
    running = server(site.target, *site.options, "--workers", "2", env=site.env | notes.env)
    slow = f"open({str(notes.path)!r}, 'a').write('begun\\n'); "
    if stage == "while it imports":
        site.deploy("two", before=slow + "time.sleep(600)")
    else:
        site.deploy("two", startup=slow + "await asyncio.sleep(600)")
    running.signal(signal.SIGHUP)
    running.wait_for(lambda: "begun" in notes.lines, what="the new generation")
    assert running.stop() == 0


def test_a_stop_while_settings_are_read(server: Start, tmp_path: Path) -> None:
    """They come from a FIFO that says nothing. Fails with an executor's thread: "stopped", but the process stays."""
    file = tmp_path / "site.toml"
    _settings(file, workers=1)
    running = server(APP, "-c", str(file))
    file.unlink()
    os.mkfifo(file)
    with file.open("r+b", buffering=0):  # who opens it now need not wait, and who reads it must
        running.signal(signal.SIGHUP)
        running.wait_for(
            lambda: any(str(file) in each.descriptors().values() for each in running.family()),
            what="the file to be read",
        )
        assert running.stop() == 0


@pytest.mark.skipif(not LINUX, reason="only Linux tells a child of its parent's end")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("when", ["at the start", "at a reload"])
def test_who_runs_a_settings_file_ends_with_the_master(server: Start, tmp_path: Path, when: str, how: str) -> None:
    """The file waits for a FIFO that says nothing. Fails without `end_with_parent`: its process goes on waiting."""
    file, fifo, starting = tmp_path / "site.py", tmp_path / "fifo", when == "at the start"
    waits = f"open({str(fifo)!r}).read()"
    os.mkfifo(fifo)
    file.write_text(waits if starting else "")
    with fifo.open("r+b", buffering=0):  # who opens it now need not wait, and who reads it must
        running = server(APP, "-c", str(file), ready=not starting)
        if not starting:
            file.write_text(waits)
            running.signal(signal.SIGHUP)
        running.wait_for(
            lambda: any(str(fifo) in each.descriptors().values() for each in running.family()),
            what="the file to be run",
        )
        running.signal(signal.Signals[how])
        assert running.wait_exit() == (0 if (when, how) == ("at a reload", "SIGTERM") else -signal.Signals[how])
        running.wait_for(lambda: not running.family(), what="all its processes to end")
    assert "Traceback" not in running.log


# ── settings ─────────────────────────────────────────────────────────────────────────────────


def test_trap_45_settings_are_read_again(server: Start, tmp_path: Path) -> None:
    """Workers, binds that come and go, the logs' paths. Fails with `reread` that returns what was read first.

    And with the order in Runner.listen turned round: the old log says where the new generation listens.
    """
    file, first, second = tmp_path / "site.toml", free_port(), tmp_path / "new.sock"
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    _settings(file, workers=1, bind=[f"127.0.0.1:{first}"], errorlog=str(logs[0]))
    running = server(APP, "-c", str(file), bind=(), ready=False)
    running.wait_for(lambda: logs[0].exists() and "the one worker is ready" in logs[0].read_text(), what="start")
    _settings(file, workers=2, bind=[f"127.0.0.1:{first}", f"unix:{second}"], errorlog=str(logs[1]))
    running.signal(signal.SIGHUP)
    running.wait_for(lambda: logs[1].exists() and "is ready" in logs[1].read_text(), what="the new log")
    running.wait_for(lambda: len(running.workers()) == 2, what="two workers")
    assert f"listening on unix:{second}" in logs[1].read_text()
    assert fetch(str(second)).status == 200
    assert fetch(("127.0.0.1", first)).status == 200
    _settings(file, workers=2, bind=[f"unix:{second}"], errorlog=str(logs[1]))
    running.signal(signal.SIGHUP)
    running.wait_for(
        lambda: f"http://127.0.0.1:{first} is no longer listened on" in logs[1].read_text(), what="the address to go"
    )
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first)).close()
    assert fetch(str(second)).status == 200
    assert running.stop() == 0
    assert not second.exists()


WRONG = {
    "workers = ": "site.toml",
    "worker = 3": "workers",
    "workers = 'many'": "workers",
    "bind = ['unix:/there/is/no/such/directory/a.sock']": "/there/is/no/such/directory",
    "errorlog = '/there/is/no/such/directory/log'": "/there/is/no/such/directory",
}


def test_settings_that_are_wrong_refuse_the_reload(server: Start, tmp_path: Path) -> None:
    """Nothing changes, and no process is even started. Fails without the except in Runner.reload: the master dies."""
    file = tmp_path / "site.toml"
    _settings(file, workers=2, bind=[f"unix:{tmp_path}/a.sock"])
    running = server(APP, "-c", str(file), bind=())
    before = {each.pid for each in running.family()}
    for text, said in WRONG.items():
        file.write_text(text)
        start = len(running.log)
        _reload(running, r"reload \(SIGHUP\) refused, everything stays as it is: ", start=start)
        assert said in running.log[start:]
        assert {each.pid for each in running.family()} == before
    assert running.fetch().status == 200
    assert running.stop() == 0


@variant
def test_what_a_reload_cannot_change_is_said(server: Start, tmp_path: Path) -> None:
    """Fails without the remarks of provide_next."""
    file = tmp_path / "site.toml"
    _settings(file, proc_name="before")
    running = server(APP, "-c", str(file))
    _settings(file, proc_name="after")
    _reload(running, r"reload \(SIGHUP\): proc_name is 'after' in the settings, but stays 'before' until a restart")
    running.wait_log("generation 2 serves")
    assert running.stop() == 0


@pytest.mark.parametrize("kind", [pytest.param("tcp", marks=variant), "unix"])
def test_an_address_of_a_reload_that_failed_comes_with_the_next_one(
    server: Start, kind: str, site: Site, tmp_path: Path
) -> None:
    """The failed generation's listener is let go of with it, and bound anew.

    Fails without Runner._forget (it stays open), and was refused as live before.
    """
    file = tmp_path / "site.toml"
    port = free_port()
    new = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:{tmp_path}/new.sock"
    where = ("127.0.0.1", port) if kind == "tcp" else f"{tmp_path}/new.sock"
    old = f"unix:{tmp_path}/old.sock"
    _settings(file, bind=[old])
    running = server(site.target, *site.options, "-c", str(file), bind=(), env=site.env)
    _settings(file, bind=[old, new])
    site.deploy("two", before="raise RuntimeError")
    _reload(running, "reload failed: generation 2")
    running.wait_for(lambda: len(running.zygotes()) == 1, what="the failed generation to go")
    running.wait_for(lambda: not [name for name in os.listdir(tmp_path) if "new.sock" in name], what="its path to go")
    site.deploy("three")
    _reload(running, "generation 3 serves")
    running.wait_for(lambda: "no such" not in _try(where), what="the new address to serve")
    assert fetch(where).text == "three"
    assert "refused" not in running.log
    assert running.stop() == 0
    assert not list(tmp_path.glob("*.sock*")), os.listdir(tmp_path)


def _try(where: tuple[str, int] | str) -> str:
    try:
        return fetch(where).text
    except OSError:
        return "no such address yet"


def test_reloads_that_add_an_address_while_one_is_under_way(server: Start, site: Site, tmp_path: Path) -> None:
    """The waiting reload has bound it; the next one takes it over. Fails with provide_next(the serving one's)."""
    file, new = tmp_path / "site.toml", f"{tmp_path}/new.sock"
    _settings(file, bind=[f"unix:{tmp_path}/old.sock"])
    running = server(site.target, *site.options, "-c", str(file), "--canary-time", "1", bind=(), env=site.env)
    _reload(running, r"generation 2, pid \d+\) is ready")
    _settings(file, bind=[f"unix:{tmp_path}/old.sock", f"unix:{new}"])
    for _ in range(3):
        running.signal(signal.SIGHUP)
        running.wait_for(lambda: _hups_pending(running) == 0, what="the signal to be taken")
    running.wait_log(f"listening on unix:{new}")
    assert fetch(new).status == 200
    assert "refused" not in running.log
    assert re.search("generation [34] serves", running.log)
    assert ready_pids(running, 3)
    assert running.stop() == 0
