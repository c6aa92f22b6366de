"""Upgrade (SIGUSR2): the master re-executes itself in place, and nobody outside can tell but by the new code.

Each docstring says how the test was seen to fail.
"""

import fcntl
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.harness import Load, Notes, ServerProcess, fetch, process
from tests.harness.server import REPOSITORY, addresses_in
from tests.process.rolling import APP, LONG, Start, hold, ready_pids, settle, variant

pytestmark = pytest.mark.process

DONE = "goes on after the upgrade"


def _upgrade(server: ServerProcess, number: int) -> None:
    """The `number`th one, until the reload after it is over."""
    server.signal(signal.SIGUSR2)
    server.wait_log(DONE, count=number)
    server.wait_log(rf"generation {number + 1} serves")


@pytest.mark.timeout(180)
def test_traps_46_48_and_91_upgrades_under_load_cost_nothing_and_leak_nothing(server: Start, tmp_path: Path) -> None:
    """Same pid, same pidfile (still locked), same socket path; no request fails; no descriptor stays.

    Fails with listeners that are not inheritable (refused), and with os.set_inheritable(fd, True) for every descriptor
    (the count grows, and zygotes hold the pidfile).
    """
    times = 20 if LONG else 2
    pidfile, path = tmp_path / "pid", f"{tmp_path}/a.sock"
    bind = ("127.0.0.1:0", f"unix:{path}")
    running = server(APP, "--workers", "2", "--no-access-log", "--pidfile", str(pidfile), bind=bind)
    master = process(running.pid)
    assert master is not None
    inode = os.stat(path).st_ino
    counts: list[int] = []
    with Load(running.where, connections=8, pause=0.01) as tcp, Load(path, connections=8, pause=0.01) as unix:
        for number in range(1, times + 1):
            _upgrade(running, number)
            settle(running, 2, generation=number + 1)
            running.wait_for(lambda: len(running.zygotes()) == 1, what="the old zygote to go")
            if counts:  # the master learns a moment later that the zygote has gone, and closes what it had of it
                running.wait_for(
                    lambda: len(master.descriptors()) <= counts[0], what=f"descriptors as before: {counts}"
                )
            counts.append(len(master.descriptors()))
            assert master.alive, "the same process, by pid and by start"
            assert pidfile.read_text() == f"{running.pid}\n"
            assert os.stat(path).st_ino == inode
            for each in (*running.zygotes(), *running.workers()):
                held = each.descriptors().values()
                assert not {str(pidfile), str(tmp_path / ".pid~")}.intersection(held), (
                    "the lock would outlive the master"
                )
        tcp.wait_for_more(50)
        unix.wait_for_more(50)
    print(f"{times} upgrades: {tcp.outcome.ok + unix.outcome.ok} requests, descriptors {counts}")
    tcp.outcome.check(at_least=100)
    unix.outcome.check(at_least=100)
    with (tmp_path / ".pid~").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert running.stop() == 0
    assert not pidfile.exists()
    assert not os.path.exists(path)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGTTIN, marks=variant)])
def test_trap_46_signals_in_the_gap_are_obeyed_afterwards(server: Start, number: int, tmp_path: Path) -> None:
    """Sent while the new image imports, with nobody there to hear. Fails without the blocked mask in become()."""
    running = server(APP, "--workers", "2")
    running.signal(signal.SIGUSR2)
    running.wait_log("the master re-executes itself")
    running.wait_for(lambda: _blocked(running, number) or DONE in running.log, what="the signals to be blocked")
    running.signal(number)
    assert DONE not in running.log, "the premise: nobody was there to hear (a master that spawns blocks them, too)"
    running.wait_log(DONE)
    if number == signal.SIGTERM:
        assert running.wait_exit() == 0
        running.wait_log(r"stopping \(SIGTERM\)")
        return
    running.wait_log("scaling from 2 to 3 workers")
    settle(running, 3, generation=2)
    assert running.stop() == 0


def _blocked(server: ServerProcess, number: int) -> bool:
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("SigBlk:"):
            return bool(int(line.split()[1], 16) & 1 << number - 1)
    return False


def test_trap_49_workers_are_adopted_with_their_age_their_counts_and_their_drain(server: Start, tmp_path: Path) -> None:
    """One drains when the upgrade comes, another is close to its limit; both go on as if nothing had happened.

    Fails with a state that begins anew: the draining one is unknown and its request cut, the other is never due.
    """
    notes, gate = Notes(tmp_path), tmp_path / "gate"
    running = server(APP, "--graceful-timeout", "20", env=notes.env)
    (old,) = ready_pids(running)
    with hold(running, f"/gate?file={gate}") as held:
        running.wait_for(lambda: notes.pids("gate") == [old], what="the request to be under way")
        running.signal(signal.SIGHUP)
        running.wait_log("generation 2 serves")
        running.signal(signal.SIGUSR2)
        running.wait_log(DONE)
        gate.touch()
        assert held.read_response().status == 200
    running.wait_log(rf"worker 1 \(generation 1, pid {old}\) has left after ([\d.]+) s")
    settle(running, 1, generation=3)
    assert running.stop() == 0


def test_trap_49_a_limit_of_requests_counts_across_an_upgrade(server: Start, tmp_path: Path) -> None:
    """The reload after the upgrade fails (a broken deploy), so the old workers are kept, and are due at 100 requests.

    Fails with requests counted anew, or with RecycleAsked lost.
    """
    site = tmp_path / "site"
    site.mkdir()
    shutil.copy(REPOSITORY / "tests/apps/rollout/app.py", site / "counted.py")
    running = server("counted:app", "--app-dir", str(site), "--max-requests", "100", "--min-lifetime", "0")
    (old,) = ready_pids(running)
    with running.connect() as connection:
        for _ in range(60):
            connection.request("/")
        (site / "counted.py").write_text("raise RuntimeError('half deployed')")
        running.signal(signal.SIGUSR2)
        running.wait_log(r"reload failed: generation 2.*generation 1 stays")
        for _ in range(39):
            assert connection.request("/").header("connection") is None
        connection.request("/")
        running.wait_log(rf"pid {old}\) is due: 100 requests served")
    running.wait_log(rf"pid {old}\) has left")
    assert ready_pids(running, 1) != [old], "its replacement came from the same loaded image"
    assert running.stop() == 0


def test_the_next_master_writes_on_in_the_logs_that_are_open(server: Start, tmp_path: Path) -> None:
    """Their folder is gone, say. Fails with logs opened again by path: the service dies."""
    folder, gone = tmp_path / "logs", tmp_path / "gone"
    folder.mkdir()
    options = ("--errorlog", str(folder / "error"), "--accesslog", str(folder / "access"))
    running = server(APP, *options, ready=False)
    error = folder / "error"
    running.wait_for(lambda: error.exists() and addresses_in(error.read_text()), what="its address")
    where = addresses_in(error.read_text())[0].where
    assert fetch(where, "/before").status == 200
    folder.rename(gone)
    running.signal(signal.SIGUSR2)

    def renewed() -> bool:
        assert running.returncode is None, "the next master could not begin"
        said = (gone / "error").read_text()
        return "goes on after the upgrade" in said and "generation 2 serves" in said

    running.wait_for(renewed, what="the upgrade and its reload in the log")
    assert fetch(where, "/after").status == 200
    running.wait_for(lambda: "/after" in (gone / "access").read_text(), what="the access line")
    assert running.stop() == 0
    assert not folder.exists()


# ── the preflight ────────────────────────────────────────────────────────────────────────────


def test_a_log_config_that_is_gone_refuses_the_upgrade(server: Start, tmp_path: Path) -> None:
    """Fails without the preflight's look at it: the next master could not begin, and the service would end."""
    config = tmp_path / "logging.json"
    config.write_text(
        '{"handlers": {"err": {"class": "logging.StreamHandler"}}, "root": {"handlers": ["err"], "level": "INFO"}}'
    )
    running = server(APP, "--log-config", str(config))
    config.unlink()
    running.signal(signal.SIGUSR2)
    running.wait_log(r"upgrade \(SIGUSR2\) refused(.|\n)*log_config .* cannot be read")
    assert running.fetch().status == 200
    assert running.stop() == 0


def _unchanged(server: ServerProcess, before: set[int]) -> None:
    """The refusal is in the log, and nothing else has happened."""
    server.wait_log(r"upgrade \(SIGUSR2\) refused, everything stays as it is: the preflight ended with status")
    assert {each.pid for each in server.family()} == before
    assert DONE not in server.log
    assert server.fetch().status == 200


def test_trap_47_settings_that_are_wrong_refuse_the_upgrade(server: Start, tmp_path: Path) -> None:
    """Fails without the preflight: the new image ends with exit code 2, and the service with it."""
    file = tmp_path / "site.toml"
    file.write_text("workers = 2\n")
    running = server(APP, "-c", str(file))
    before = {each.pid for each in running.family()}
    file.write_text("worker = 2\n")
    running.signal(signal.SIGUSR2)
    _unchanged(running, before)
    running.wait_log("worker")
    file.write_text("workers = 1\n")
    running.signal(signal.SIGUSR2)
    running.wait_log(DONE)
    settle(running, 1, generation=2)
    assert running.stop() == 0


@pytest.mark.parametrize("how", ["another schema", pytest.param("does not import", marks=variant)])
def test_trap_47_an_aserver_that_cannot_take_over_refuses_the_upgrade(server: Start, how: str, tmp_path: Path) -> None:
    """A copy of aserver, changed on disk while it runs. Fails without the comparison in answer_preflight."""
    shutil.copytree(REPOSITORY / "aserver", tmp_path / "aserver", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(REPOSITORY / "tests/apps/rollout/app.py", tmp_path / "site_app.py")
    (tmp_path / "site_app.py").write_text((tmp_path / "site_app.py").read_text().replace("from tests.apps import", "#"))
    text = (tmp_path / "site_app.py").read_text()
    (tmp_path / "site_app.py").write_text(re.sub(r"^(\s*)content\.note\(.*\)$", r"\1pass", text, flags=re.MULTILINE))
    env = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    running = server("site_app:app", env=env, cwd=tmp_path)
    before = {each.pid for each in running.family()}
    changed = tmp_path / "aserver/master/snapshot.py"
    text = changed.read_text()
    if how == "another schema":
        changed.write_text(re.sub(r"^SCHEMA = \d+$", "SCHEMA = 999", text, flags=re.MULTILINE))
    else:
        changed.write_text("import there_is_no_such_module\n")
    running.signal(signal.SIGUSR2)
    _unchanged(running, before)
    said = "this aserver reads 999; restart instead" if how == "another schema" else "there_is_no_such_module"
    running.wait_log(said)
    changed.write_text(text)
    running.signal(signal.SIGUSR2)
    running.wait_log(DONE)
    settle(running, 1, generation=2)
    assert fetch(running.where).status == 200
    assert running.stop() == 0


def test_a_stop_during_the_preflight_and_two_upgrades_at_once(server: Start) -> None:
    """The second is refused; the stop is obeyed at once. Fails with a preflight that blocks the loop."""
    running = server(APP)
    running.signal(signal.SIGUSR2)
    running.wait_log("preflight")
    running.signal(signal.SIGUSR2)
    running.wait_log(r"upgrade \(SIGUSR2\) refused: one is under way")
    assert running.stop() == 0
    assert DONE not in running.log
