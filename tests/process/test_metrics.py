"""Counters of a running server: none goes backwards, whatever happens to the processes that count."""

import signal
import socket
import threading
from pathlib import Path
from typing import Any, Self

import pytest

from aserver.command.instances import Line, Unreachable
from tests.harness import PATIENCE, Load
from tests.process.rolling import APP, LONG, Start, ready_pids, settle

pytestmark = pytest.mark.process

RECYCLES, RELOADS = (200, 20) if LONG else (2, 1)


def scrape(path: Path) -> dict[tuple[str, ...], float]:
    """Every number that only grows, by family and labels."""
    with Line(str(path)) as line:
        families: list[dict[str, Any]] = line.ask("metrics")["metrics"]
    found: dict[tuple[str, ...], float] = {}
    for family in families:
        for sample in family["samples"]:
            key = (family["name"], *sample.get("labels", {}).values())
            if family["kind"] == "counter":
                found[key] = sample["value"]
            elif family["kind"] == "histogram":
                numbers = [*sample["buckets"], sample["sum"], sample["count"]]
                found |= {(*key, str(index)): number for index, number in enumerate(numbers)}
                found[(*key, "count")] = sample["count"]
    return found


class Scraper:
    """A context manager that scrapes again and again; `falls` has what went backwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = scrape(path)
        self.scrapes = 0
        self.falls: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            try:
                now = scrape(self.path)
            except (Unreachable, OSError):  # the connection ends with an upgrade's exec
                continue
            self.scrapes += 1
            self.falls += [f"{key}: {old} -> {now.get(key)}" for key, old in self.last.items() if now.get(key, 0) < old]
            self.last = now


@pytest.mark.timeout(1800 if LONG else 90)
def test_no_counter_goes_backwards_and_none_is_lost(server: Start, tmp_path: Path) -> None:
    """Through recycles, reloads, an upgrade and SIGKILL.

    Fails without `Totals.fold` in `Workers._forget`, without `totals` in the snapshot, and without the last write of
    a worker that leaves (then 200s are missing).
    """
    path = tmp_path / "control.sock"
    limits = ("--max-requests", "300", "--min-lifetime", "0", "--canary-time", "0", "--no-access-log")
    running = server(APP, "--workers", "2", "--control", str(path), *limits)
    settle(running, 2)
    with Scraper(path) as scraper:
        with Load(running.where, connections=8, pause=0) as load:
            running.wait_for(lambda: len(ready_pids(running)) >= 2 + RECYCLES, timeout=900, what="recycles")
            for number in range(RELOADS):
                running.signal(signal.SIGHUP)
                running.wait_log(rf"reload complete: generation {number + 2} ", timeout=60)
            running.signal(signal.SIGUSR2)
            running.wait_log(rf"upgrade complete: generation {RELOADS + 2} ", timeout=60)
        served = ("http.server.request.duration", "2xx", "count")
        running.wait_for(lambda: scrape(path)[served] >= load.outcome.ok, what="the last heartbeat")
        load.outcome.check(at_least=1000)
        assert scrape(path)[served] == load.outcome.ok
        with Load(running.where, connections=8, pause=0.05):
            victim, _ = settle(running, 2, RELOADS + 2)
            victim.kill()
            settle(running, 2, RELOADS + 2, other_than=victim.pid)
        assert scrape(path)["aserver.worker.restarts", "killed"] == 1
    assert scraper.falls == []
    assert scraper.scrapes > 10
    assert scraper.last["aserver.worker.restarts", "max_requests"] >= RECYCLES
    assert scraper.last["aserver.reloads", "complete"] == RELOADS + 1


def test_statsd_is_told_also_of_the_last_seconds_and_over_an_upgrade(server: Start) -> None:
    """Fails without the push in `StatsdPush.close`, and without `Snapshot.told`: it tells nothing for ten seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        running = server(APP, "--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}", "--control", "off")
        for _ in range(3):
            assert running.fetch("/").status == 200
        running.signal(signal.SIGUSR2)
        running.wait_log("upgrade complete")
        told = 0.0
        while told < 3:  # the new image tells at once
            told += timed(statsd.recv(65536))
        assert running.fetch("/").status == 200
        assert running.stop() == 0
        while told < 4:
            told += timed(statsd.recv(65536))
        assert told == 4


def timed(datagram: bytes) -> float:
    """How many requests a datagram tells of."""
    lines = datagram.decode().splitlines()
    timers = [line for line in lines if line.startswith("http.server.request.duration.2xx:")]
    return sum(round(1 / float([*line.split("|@"), "1"][1])) for line in timers)
