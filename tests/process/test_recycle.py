"""Recycling by requests, age and memory: the replacement serves first, and no client notices.

Each docstring says how the test was seen to fail.
"""

import ctypes
import os
import re
import struct
from pathlib import Path

import pytest

from aserver import unix
from tests.harness import Load, Notes, ServerProcess, wait_for
from tests.process.rolling import APP, LONG, Start, keep_to, ready_pids, settle, variant, wrk

pytestmark = pytest.mark.process

#: Seconds that the app of the stall tests takes to import. A client that had to wait for it would wait as long.
IMPORT = 2.0
NOW = ("--min-lifetime", "0")


def _due(server: ServerProcess, what: str) -> list[int]:
    """The limits of all workers that were due, from the log."""
    return [int(number) for number in re.findall(rf"is due: .* its limit is (\d+).*\({what}\)", server.log)]


@pytest.mark.external
@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["--preload", pytest.param("--lazy", marks=variant)])
def test_recycling_under_load_fails_nothing_and_stalls_nobody(server: Start, mode: str) -> None:
    """wrk with kept, one-shot and pipelined connections while workers go every 300 requests; the import takes 2 s.

    Fails with `drain` before the replacement is ready in reconcile._replace_outgoing (answers wait for the import).
    """
    limits = ("--workers", "2", "--max-requests", "300", *NOW, "--no-access-log")
    running = server(APP, *limits, mode, env={"IMPORT_SECONDS": str(IMPORT)})
    # A lazy replacement takes its 2 s, and so would one second of each kind: the other kinds are for the long run.
    for kind in ("", "close=1", "pipeline=8") if LONG or mode == "--preload" else ("",):
        before = len(ready_pids(running))
        result = wrk(running.url, *filter(None, [kind]), seconds=6 if LONG else 1 if mode == "--preload" else 3)
        went = len(ready_pids(running)) - before
        print(f"{mode} {kind or 'kept'}: {result.requests} requests, {went} recycles, longest {result.longest:.0f} ms")
        assert not result.errors, f"{kind}: {result.errors}"
        assert result.requests > 600
        assert result.longest < IMPORT * 1000 / 2, f"{kind}: an answer took {result.longest} ms"
        assert went, f"{kind}: nobody was replaced"
    assert running.stop() == 0
    assert "Traceback" not in running.log


def _slices(pid: int) -> set[int]:
    """The time slices of a process's threads in ns (sched_getattr(2)); 0 before Linux 6.12."""
    assert unix.SCHED_ATTR is not None
    found = set()
    for thread in map(int, os.listdir(f"/proc/{pid}/task")):
        attr = ctypes.create_string_buffer(48)
        assert ctypes.CDLL(None).syscall(unix.SCHED_ATTR[1], thread, attr, len(attr), 0) == 0
        found.add(struct.unpack_from("=Q", attr, 24)[0])
    return found


@pytest.mark.skipif(not unix.LINUX or unix.SCHED_ATTR is None, reason="the time slice of a process is Linux's")
def test_workers_that_serve_interrupt_all_else(server: Start, tmp_path: Path) -> None:
    """Master, zygote, and workers that boot or leave have long time slices; a ready worker's threads, usual ones.

    Fails without each of the four calls of `let_others_first`.
    """
    (usual,) = _slices(os.getpid())
    if usual == 0:
        pytest.skip("a kernel before 6.12")
    app = tmp_path / "threaded.py"
    app.write_text(
        "import asyncio, atexit, os, threading, time\n"
        "def leave():\n"
        "    open(f'leaves.{os.getpid()}', 'w').close()\n"
        "    while not os.path.exists('go'): time.sleep(0.01)\n"
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "    atexit.register(leave)\n"
        "    open(f'boots.{os.getpid()}', 'w').close()\n"
        "    while not os.path.exists('go'): await asyncio.sleep(0.01)\n"
        "    await send({'type': 'lifespan.startup.complete'})\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.shutdown.complete'})\n"
    )

    def has(sign: str) -> int:
        wait_for(lambda: list(tmp_path.glob(f"{sign}.*")), what=sign)
        return int(next(tmp_path.glob(f"{sign}.*")).suffix[1:])

    running = server("threaded:app", "--workers", "1", "--lifespan", "on", cwd=tmp_path, ready=False)
    worker = has("boots")
    (zygote,) = running.zygotes()
    long = _slices(worker)
    assert long == _slices(zygote.pid) == _slices(running.pid)
    assert min(long) > usual
    (tmp_path / "go").touch()
    running.wait_log("workers? (is|are) ready|is ready after")
    wait_for(lambda: _slices(worker) == {usual}, what="the usual time slice of a ready worker")
    assert len(os.listdir(f"/proc/{worker}/task")) > 1
    (tmp_path / "go").unlink()
    running.terminate()
    assert has("leaves") == worker
    assert _slices(worker) == long
    (tmp_path / "go").touch()
    assert running.wait_exit() == 0


@pytest.mark.timeout(1800 if LONG else 60)
def test_a_connection_for_each_request_through_recycles_loses_none(server: Start) -> None:
    """The end of a fairness pause and the drain meet in one turn of the loop in one recycle of a few hundred.

    So the long run asks a million times; tests/unit/worker/test_accepting_orders.py brings them together each time.
    Fails in
    the long run with `state = OPEN` in what a pause's end schedules: "closed before the answer".
    """
    running = server(APP, "--workers", "2", "--max-requests", "100", *NOW, "--no-access-log")
    goal = 1_000_000 if LONG else 3000
    with Load(running.where, connections=40, keep_alive=False, pause=0) as load:
        while load.outcome.ok < goal and not load.outcome.failures:
            load.wait_for_more(1000)
    load.outcome.check(at_least=goal)
    assert running.log.count("has left after") >= 5
    assert running.stop() == 0


def test_trap_61_kept_connections_that_think_never_meet_a_closed_door(server: Start) -> None:
    """Clients without retries, which are idle at any moment of a recycle, through recycles and reloads.

    Fails with service.close_idle() at the beginning of ServerDrain.run: "closed before the answer".
    """
    recycles, reloads = (25, 4) if LONG else (8, 2)
    running = server(APP, "--workers", "2", "--max-requests", "150", *NOW, "--no-access-log")
    with Load(running.where, connections=24, pause=0.015) as load:
        for reload in range(reloads):
            running.wait_log("is due: ", count=recycles * (reload + 1) // reloads)
            running.signal(1)
            running.wait_log(f"generation {reload + 2} serves")
            load.wait_for_more(300)
    load.outcome.check(at_least=1000)
    assert running.stop() == 0


def test_jitter_is_drawn_for_each_worker_and_only_adds(server: Start) -> None:
    """Fails with jitter drawn in the worker from a random.Random() copied by the fork, and with `rng() * 0`."""
    limits = ("--max-requests", "20", "--max-requests-jitter", "200", *NOW)
    running = server(APP, "--workers", "3", *limits, "--no-access-log")
    with Load(running.where, keep_alive=False, pause=0) as load:
        running.wait_log("is due: ", count=6)
    load.outcome.check()
    drawn = _due(running, "max_requests")
    assert all(20 <= limit <= 220 for limit in drawn)
    assert len(set(drawn)) > 2, f"they differ: {drawn}"
    assert running.stop() == 0


def test_lifetime_with_jitter(server: Start) -> None:
    """An idle worker goes too, each at its own time. Fails without the age in RecycleLimits.reached."""
    limits = ("--max-lifetime", "1", "--max-lifetime-jitter", "2", *NOW)
    running = server(APP, "--workers", "2", *limits)
    running.wait_log(r"is due: \d s old, its limit is \d s \(max_lifetime\)", count=2)
    running.wait_log(r"\) has left after", count=2)
    ages = [float(age) for age in re.findall(r"has left after ([\d.]+) s", running.log)]
    assert min(ages) >= 1.0, ages
    assert running.stop() == 0


def test_nobody_goes_before_min_lifetime(server: Start) -> None:
    """Not even one that reached its requests long ago. Fails with min_lifetime taken for 0 in reconcile.recycle_at."""
    running = server(APP, "--max-requests", "10", "--min-lifetime", "1.5")
    (first,) = ready_pids(running)
    with Load(running.where, connections=2) as load:
        running.wait_log(f"pid {first}\\) has left after")
    load.outcome.check(at_least=50)
    (age,) = re.findall(rf"pid {first}\) has left after ([\d.]+) s", running.log)
    assert float(age) >= 1.5
    assert running.stop() == 0


def test_trap_87_what_is_shared_with_the_zygote_does_not_count(server: Start) -> None:
    """A 150 MB zygote, a limit of 100 MB: a fresh worker stays, one that has grown by itself goes.

    Fails with memory_metric=rss: the fresh workers are due within a second.
    """
    running = server(APP, "--max-memory", "100M", *NOW, "--workers", "2", env={"BALLAST_MEGABYTES": "150"})
    first = settle(running, 2)
    resident = [int(each.status("VmRSS").split()[0]) >> 10 for each in first]
    assert min(resident) > 100, f"the premise: by their resident size they are over the limit ({resident} MB)"
    with keep_to(running, first[0].pid) as grows:
        assert grows.request("/grow?amount=120").status == 200
        running.wait_log(rf"pid {first[0].pid}\) is due: 1\d\d MiB of private memory used, the limit is 100M")
    running.wait_log(f"pid {first[0].pid}\\) has left")
    assert re.search(r"grown since boot: builtins\.bytes \+\d+ \(\+12\d\.\d MiB\)", running.log), "and it says why"
    assert first[1].alive, "its neighbour was looked at as often"
    assert running.log.count("is due: ") == 1
    assert running.stop() == 0


def test_trap_88_a_worker_looks_at_its_own_memory(server: Start) -> None:
    """Fails with statm opened before the fork: the zygote's size, which does not change."""
    running = server(APP, "--max-memory", "150M", "--memory-metric", "rss", *NOW)
    (first,) = running.workers()
    assert running.fetch("/grow?amount=180").status == 200
    running.wait_log(rf"pid {first.pid}\) is due: \d+ MiB of rss memory used")
    running.wait_log(r"grown since boot: builtins\.bytes \+\d+ \(\+18\d\.\d MiB\)")
    running.wait_log(f"pid {first.pid}\\) has left")
    assert running.stop() == 0


def test_trap_89_all_due_in_the_same_second(server: Start, tmp_path: Path) -> None:
    """Four workers reach their limit together: one after the other goes, each when its replacement serves.

    Fails without can_lose_one in reconcile._replace_outgoing (all drain at once), and without `live < target + surge`
    in Model.can_fork (eight processes).
    """
    notes = Notes(tmp_path)
    env = notes.env | {"IMPORT_SECONDS": "0.2"}
    running = server(APP, "--workers", "4", "--lazy", "--max-requests", "60", "--min-lifetime", "1", env=env)
    most = 0
    with Load(running.where, connections=16) as load:

        def replaced() -> bool:
            nonlocal most
            most = max(most, len(running.workers()))
            return running.log.count("has left after") >= 4

        running.wait_for(replaced, what="all four to be replaced")
    load.outcome.check()
    assert most <= 5, f"{most} processes at once, 4 workers and a surge of 1 are allowed"
    here = 0
    for event in re.findall(r"is ready after|has left after", running.log):
        here += 1 if event.startswith("is ready") else -1
        assert here >= 4 or event.startswith("is ready"), "one left before its replacement served"
    assert running.stop() == 0
