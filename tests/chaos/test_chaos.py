"""Issue 3's chaos test: a seeded minute of kills, halts, signals and broken deploys under load; then the books balance.

TEST_CHAOS_SEED repeats a script, TEST_CHAOS_SECONDS sets its length (`make chaos`: 60).
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.chaos import books, tree
from tests.chaos.clients import Crowd, Key, Ledger, Request
from tests.chaos.havoc import LONG, WORKERS, ChaosServer, Harm, Havoc, Site
from tests.chaos.script import Act, draw
from tests.harness.processes import process

pytestmark = [pytest.mark.process, pytest.mark.alone]

SECONDS = float(os.environ.get("TEST_CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("TEST_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))

_numbers = itertools.count()


@pytest.mark.timeout(SECONDS * 2 + 150)
@pytest.mark.skipif(sys.platform != "linux", reason="attributes failures by /proc and pidfd_getfd(2)")
def test_the_books_balance_after_chaos(tmp_path: Path) -> None:
    """Every failure belongs to a worker that we harmed; nothing is left behind, leaked, torn or unsaid.

    Seen to fail with each of these alone: idle connections closed at the beginning of ServerDrain.run; a dead worker's
    pidfd and trace left open in Processes; the snapshot's memory file left open after an upgrade; access lines written
    every 100 ms instead of every tick; deaths that neither Processes nor reap_strangers waits for.
    """
    print(f"chaos: TEST_CHAOS_SEED={SEED} TEST_CHAOS_SECONDS={SECONDS:g}")
    site = Site(tmp_path)
    with site.start() as server:
        server.wait_ready()
        before = _descriptors(server)
        havoc = Havoc(server, site)
        try:
            with Crowd([server.where, site.unix], SEED) as crowd:
                havoc.carry_out(draw(SEED, SECONDS))
                version = _settle(havoc)
            _check_rest(server, before, version)
            assert server.stop() == 0
        finally:
            print("\n".join(havoc.done))
        log = server.log
    ledger = crowd.ledger
    kinds = Counter(request.ident.partition("-")[0] for request in ledger.good)
    print(f"{len(ledger.good)} good {dict(kinds)}, {len(ledger.failed)} failed, {ledger.returned} returned,")
    print(f"{ledger.connections} connections; {len(havoc.harms)} workers harmed, {log.count(' is ready')} booted")
    wrong = [
        *books.unexplained(ledger, havoc.harms),
        *books.misreported(ledger, havoc.harms, site.read(site.accesslog)),
        *books.unsaid(havoc.harms, log),
        *books.alarming(log),
    ]
    _fail_if(wrong, log)
    assert min(kinds[kind] for kind in ("kept", "thinking", "single", "pipelined", "upload", "stream")) > SECONDS


def _settle(havoc: Havoc) -> str:
    """Under load still, but left alone: back to the first number of workers, and a last deploy that must go through."""
    over = ("re-executes itself", ") refused", ") given up")
    havoc.until(
        lambda: sum(map(havoc.logged, over)) >= havoc.logged(": preflight"), "the upgrade under way to be decided"
    )
    while havoc.target != WORKERS:
        havoc.scale(1 if havoc.target < WORKERS else -1)
    version = havoc.site.deploy()
    havoc.server.signal(signal.SIGHUP)

    def settled() -> bool:
        workers, zygotes = tree.workers(havoc.server), tree.zygotes(havoc.server)
        generations = {tree.generation(each) for each in (*workers.values(), *zygotes)}
        everybody = len(havoc.server.family())
        quiet = len(workers) == WORKERS and len(zygotes) == 1 and everybody == WORKERS + 2 and len(generations) == 1
        return quiet and havoc.server.fetch(f"/quick?id=settled-{next(_numbers)}").header("x-version") == version

    havoc.until(settled, f"{WORKERS} workers of {version}, one zygote, and nobody else")
    return version


def _check_rest(server: ChaosServer, before: dict[str, Counter[str]], version: str) -> None:
    """With the load gone: who serves, with which code, and what is open."""
    assert not tree.zombies(server)
    pids = set(tree.workers(server))
    served: dict[int, str] = {}

    def each_has_answered() -> bool:
        answer = server.fetch(f"/quick?id=rest-{next(_numbers)}")
        served[int(answer.header("x-worker") or 0)] = answer.header("x-version") or ""
        return served.keys() >= pids

    server.wait_for(each_has_answered, what="an answer from each worker")
    assert served == dict.fromkeys(pids, version)

    def more() -> dict[str, Counter[str]]:
        now = _descriptors(server)
        return {who: extra for who, kinds in before.items() if (extra := now[who] - kinds)}

    try:
        server.wait_for(lambda: not more(), what="the descriptors to be as many as before")
    except AssertionError as error:
        raise AssertionError(f"descriptors leaked: {more()}") from error


def _descriptors(server: ChaosServer) -> dict[str, Counter[str]]:
    master = process(server.pid)
    assert master is not None
    (zygote,) = tree.zygotes(server)
    kinds = tree.descriptor_kinds(zygote)
    # A zygote keeps the pidfds that it was given of its predecessor's workers, as many as lived then.
    del kinds["anon_inode:[pidfd]"]
    return {"the master": tree.descriptor_kinds(master), "the zygote": kinds}


def _fail_if(wrong: Iterable[str], log: str) -> None:
    found = list(wrong)
    for text in found[:40]:
        print(f"── {text}")
    if found:
        print(log[-20_000:])
    assert not found, f"{len(found)} entries do not balance, seed {SEED}; the first: {found[0]}"


def test_a_script_repeats_and_meets_everything() -> None:
    """Fails with a generator that is not seeded, and with an Act missing in the deck."""
    assert draw(7, 60) == draw(7, 60) != draw(8, 60)
    assert {step.act for step in draw(7, 60)} == set(Act)
    assert all(0 < step.at < 60 for step in draw(7, 60))


@pytest.mark.skipif(sys.platform != "linux", reason="pending signals are read from /proc")
def test_a_worker_that_was_halted_for_long_is_continued_to_its_abort() -> None:
    """Fails if it is continued whenever its time is over: then it served until its abort, and lost new requests."""
    with subprocess.Popen(["sleep", "60"]) as child:
        victim = process(child.pid)
        assert victim is not None
        victim.kill(signal.SIGSTOP)
        assert tree.halted(victim)
        harm = Harm(child.pid, time.monotonic() - LONG, 0.0, frozenset(), killed=False)
        havoc = Havoc(Mock(), Mock(), halted={child.pid: victim}, slight={child.pid: harm})
        for _ in range(2):
            havoc.let_go(victim)
            assert (tree.halted(victim), havoc.halted, havoc.harms) == (True, {child.pid: victim}, [harm])
        child.send_signal(signal.SIGABRT)
        havoc.let_go(victim)
        assert child.wait(10) == -signal.SIGABRT
        assert not havoc.halted


KEY = Key(2, ("127.0.0.1", 4000))
HARM = Harm(pid=5, since=10.0, by=10.2, held=frozenset({KEY}), killed=True)


def _request(**more: object) -> Request:
    values: dict[str, object] = {"ident": "kept-1", "key": KEY, "opened": 9.0, "began": 9.5, "ended": 10.1}
    return Request(**(values | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "explained"),
    [
        (_request(), True),
        (_request(worker=5), True),
        (_request(worker=6), False),  # another worker gave the connection's last answer
        (_request(key=Key(2, ("127.0.0.1", 4001))), False),
        (_request(key=Key(1, b"\0" + b"4000")), False),
        (_request(opened=10.1, ended=10.4), True),  # accepted before the signal took hold
        (_request(opened=10.3, ended=10.4), False),  # the port of a later connection
        (_request(ended=9.9), False),  # failed before we came
        (_request(key=None), False),  # refused
    ],
)
def test_the_books_notice_a_failure_that_is_not_ours(request_: Request, explained: bool) -> None:
    found = list(books.unexplained(Ledger(failed=[request_]), [HARM]))
    assert found == [] if explained else len(found) == 1


LINE = "<5> 200 6 [GET /quick?id=kept-1 HTTP/1.1]\n"


@pytest.mark.parametrize(
    ("access", "ended", "harms", "wrong"),
    [
        (LINE, 9.0, [], None),
        ("", 9.0, [], "no access line"),
        ("", 9.0, [HARM], "no access line"),  # long before the kill
        ("", 9.99, [HARM], None),  # its last tick
        (LINE * 2, 9.0, [], "2 access lines"),
        (LINE[:-9] + LINE, 9.0, [], "torn"),
        (LINE.replace("<5>", "<6>"), 9.0, [], "answered 200 by worker 5"),
        (LINE.replace(" 200 ", " 500 "), 9.0, [], "answered 200 by worker 5"),
        (LINE[:-1], 9.0, [], "does not end with a line"),
    ],
)
def test_the_books_notice_what_the_access_log_lacks(
    access: str, ended: float, harms: list[Harm], wrong: str | None
) -> None:
    ledger = Ledger(good=[_request(worker=5, ended=ended)])
    found = list(books.misreported(ledger, harms, access))
    assert found == [] if wrong is None else wrong in found[0]


def test_a_last_tick_is_one_tick() -> None:
    """Two answers on one connection, the second asked for after the first: only the second may lack its line."""
    first, second = _request(worker=5, ended=9.97), _request(ident="kept-2", began=9.98, worker=5, ended=9.99)
    (found,) = books.misreported(Ledger(good=[first, second]), [HARM], "")
    assert "kept-1" in found


TRACEBACK = "{0}Traceback (most recent call last):\n{0}  File\n{0}    raise\n{0}{1}\n2026-11-21 INFO next\n"


@pytest.mark.parametrize("indent", ["", "    "])
def test_the_books_notice_a_traceback(indent: str) -> None:
    deploy = TRACEBACK.format(indent, "RuntimeError: broken-2 on purpose")
    assert list(books.alarming(deploy)) == []
    (found,) = books.alarming(deploy + TRACEBACK.format(indent, "ValueError: a surprise") + deploy)
    assert "a surprise" in found
