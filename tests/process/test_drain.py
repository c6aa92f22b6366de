"""Draining: nobody who has connected is turned away, everybody who asks gets an answer, and it ends in time.

Each docstring says how the test was seen to fail.
"""

import re
import signal
import socket
import threading
from pathlib import Path
from typing import Self

import pytest

from tests.harness import PATIENCE, Load, Notes, RawConnection, ServerProcess, wait_for
from tests.harness.client import Where
from tests.process.rolling import APP, LONG, Start, hold, ready_pids, variant

pytestmark = pytest.mark.process

QUIET = "--no-access-log"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _replace(server: ServerProcess) -> None:
    """Reload, and wait until the workers that served before have been told to drain."""
    before = len(re.findall(r"generation \d+ serves", server.log))
    server.signal(signal.SIGHUP)
    server.wait_log(r"generation \d+ serves", count=before + 1)


def _closed_for(server: ServerProcess, pid: int) -> None:
    """Wait until worker `pid` accepts no more: every other connection goes elsewhere, and it holds no listener.

    It is told to drain in the same turn in which the new generation is said to serve; a moment later it has obeyed.
    """
    listener = _inode_of_listener(server)
    (worker,) = [each for each in server.workers() if each.pid == pid]
    held = list(worker.descriptors().values()).count(listener)
    assert held >= 1
    server.wait_for(
        lambda: list(worker.descriptors().values()).count(listener) <= 1, what=f"worker {pid} to stop accepting"
    )


def _inode_of_listener(server: ServerProcess) -> str:
    """The listener as /proc names it: what master and workers both hold."""
    assert isinstance(server.where, tuple)
    port = f":{server.where[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(port) and fields[3] == "0A":
            return f"socket:[{fields[9]}]"
    raise AssertionError("nobody listens")


# ── a worker that is replaced ────────────────────────────────────────────────────────────────


def test_trap_59_a_busy_worker_is_replaced_and_no_queued_connection_is_reset(server: Start) -> None:
    """A connection per request, a handler that blocks 8 ms: the accept queue is never empty.

    Fails with endpoint.sock.shutdown(SHUT_RDWR) in Acceptor.close, as a worker that owned its listener would.
    """
    running = server(APP, "--workers", "2", "--max-requests", "40", "--min-lifetime", "0", QUIET)
    with Load(running.where, "/block?amount=0.008", connections=16, keep_alive=False, pause=0) as load:
        running.wait_log("has left after", count=25 if LONG else 10)
    load.outcome.check(at_least=400)
    assert running.stop() == 0


def test_trap_62_a_connection_that_has_said_nothing_yet_may_still_ask_once(server: Start) -> None:
    """Fails with service.close_idle() at the beginning of ServerDrain.run."""
    running = server(APP)
    (old,) = ready_pids(running)
    with running.connect() as silent, running.connect() as kept:
        assert int(kept.request("/").body) == old
        _replace(running)
        _closed_for(running, old)
        for connection in (silent, kept):
            answer = connection.request("/")
            assert int(answer.body) == old
            assert answer.header("connection") == "close"
            connection.expect_close()
    running.wait_log(f"pid {old}\\) has left")
    assert running.stop() == 0


def test_trap_63_pipelined_requests_are_all_answered_and_the_last_one_says_close(server: Start, tmp_path: Path) -> None:
    """Three in one packet, the first of them slow; the drain begins while it runs.

    Fails with `Connection: close` on whichever response comes next instead of the last one.
    """
    notes, gate = Notes(tmp_path), tmp_path / "gate"
    running = server(APP, env=notes.env)
    (old,) = ready_pids(running)
    with running.connect() as connection:
        connection.send(f"GET /gate?file={gate} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() + GET + GET)
        running.wait_for(lambda: notes.pids("gate") == [old], what="the first request to be under way")
        _replace(running)
        _closed_for(running, old)
        gate.touch()
        answers = [connection.read_response() for _ in range(3)]
        assert [int(each.body) for each in answers] == [old] * 3
        assert [each.header("connection") for each in answers] == [None, None, "close"]
        connection.expect_close()
    assert running.stop() == 0


def test_trap_90_a_stream_runs_up_to_graceful_timeout_and_is_named_when_cancelled(
    server: Start, tmp_path: Path
) -> None:
    """One stream ends by itself within the time, another would go on for ever; lifespan shutdown comes afterwards.

    Fails without the log line in ServerDrain._cancel, and with service.cancel at once (the short stream is cut).
    """
    notes = Notes(tmp_path)
    running = server(APP, "--graceful-timeout", "2", env=notes.env)
    (old,) = ready_pids(running)
    with hold(running, "/stream?amount=2") as short, hold(running, "/stream?amount=600") as endless:
        running.wait_for(lambda: notes.pids("stream") == [old, old], what="both streams")
        _replace(running)
        assert short.read_response().body.endswith(b"last\n")
        running.wait_log(r"request cancelled, the time to drain is over: GET /stream\?amount=600, \d+\.\d s")
        assert b"piece\n" in endless.read_to_end()
    running.wait_log(f"pid {old}\\) has left")
    assert notes.pids("shutdown") == [old]
    assert running.stop() == 0


@variant
def test_the_heart_beats_on_while_a_worker_drains(server: Start, tmp_path: Path) -> None:
    """A drain longer than hang_timeout is no hang.

    Fails with the timer cancelled at the beginning of Server._run_drain.
    """
    notes = Notes(tmp_path)
    running = server(APP, "--hang-timeout", "1", env=notes.env)
    (old,) = ready_pids(running)
    with hold(running, "/slow?amount=2.5") as slow:
        running.wait_for(lambda: notes.pids("slow") == [old], what="the request to be under way")
        _replace(running)
        assert slow.read_response().status == 200
    running.wait_log(f"pid {old}\\) has left")
    assert "stands still" not in running.log
    assert running.stop() == 0


def test_trap_34_a_draining_worker_that_hangs_is_found_out(server: Start, tmp_path: Path) -> None:
    """Its replacement in the same slot beats, which must not hide that it does not.

    Fails with cells given out by slot: it stays until the deadline of its drain (42 s).
    """
    notes, gate = Notes(tmp_path), tmp_path / "gate"
    running = server(APP, "--hang-timeout", "1", env=notes.env)
    (old,) = ready_pids(running)
    with hold(running, f"/gate?file={gate}") as slow, running.connect() as other:
        running.wait_for(lambda: notes.pids("gate") == [old], what="the request to be under way")
        _replace(running)
        _closed_for(running, old)
        other.send(b"GET /block?amount=600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        running.wait_log(rf"pid {old}\): its event loop stands still for [1-4]\.\d s")
        running.wait_log(rf"pid {old}\) was killed by aserver: its event loop stood still")
        slow.sock.close()
    (new,) = ready_pids(running, 2)
    assert int(running.fetch().body) == new
    assert running.stop() == 0


# ── the end of the server ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["tcp", pytest.param("unix", marks=variant)])
def test_trap_60_nobody_whose_connect_succeeded_is_reset_by_the_stop(server: Start, kind: str, tmp_path: Path) -> None:
    """A connection per request, a handler that blocks 8 ms, and the listener closes for good.

    Fails with one turn of the loop for each connection that is taken from the queue (32 of 32 clients reset), and with
    `queued = []` in ServerDrain._serve_queued.
    """
    for _ in range(10 if LONG else 1):
        bind = ["127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/a.sock"]
        running = server(APP, "--workers", "2", QUIET, bind=bind)
        clients = _Clients(running.where)
        with clients:
            clients.wait_for_answers(200)
            running.terminate()
            assert running.wait_exit() == 0
        assert not clients.lost, f"{len(clients.lost)} lost, {clients.answered} answered: {clients.lost[0]}"


class _Clients:
    """Threads that connect, ask once and read, until connecting fails; `lost` is what failed after that."""

    def __init__(self, where: Where) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self._where = where
        self._threads = [threading.Thread(target=self._ask) for _ in range(32)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)

    def wait_for_answers(self, count: int) -> None:
        """Until so many have come."""
        wait_for(lambda: self.answered >= count or self.lost, what=f"{count} answers")

    def _ask(self) -> None:
        while True:
            try:
                connection = RawConnection(self._where)
            except OSError:  # refused: nobody promised anything
                return
            with connection:
                try:
                    answer = connection.request("/block?amount=0.008", headers={"Connection": "close"})
                    self.answered += answer.status == 200
                except (OSError, AssertionError) as error:
                    self.lost.append(repr(error))


def test_an_idle_connection_may_send_one_request_within_idle_grace(server: Start) -> None:
    """Fails with close_idle before the wait in ServerDrain.run; and it is not kept for `keep_alive`."""
    running = server(APP, "--idle-grace", "1.5")
    with running.connect() as asks, running.connect() as keeps_silent:
        assert asks.request("/").header("connection") is None
        running.terminate()
        running.wait_for(lambda: _refuses(running), what="the listener to be closed")
        assert asks.request("/").header("connection") == "close"
        asks.expect_close()
        keeps_silent.expect_close()
    assert running.wait_exit() == 0


def _refuses(server: ServerProcess) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("shutdown", [pytest.param("in its time", marks=variant), "for ever"])
def test_lifespan_shutdown_has_its_own_share_of_the_stop(server: Start, shutdown: str, tmp_path: Path) -> None:
    """A stream eats all of graceful_timeout; the shutdown still runs, and only its own limit cuts it off.

    Fails with a shutdown limit taken from what graceful_timeout left over, and without wait_for in Lifespan.shutdown.
    """
    notes = Notes(tmp_path)
    forever = shutdown == "for ever"
    env = notes.env | {"SHUTDOWN_SECONDS": "600" if forever else "0.6"}
    limits = ("--graceful-timeout", "0.5", "--lifespan-shutdown-timeout", "1")
    running = server(APP, *limits, env=env)
    with hold(running, "/stream?amount=600") as stream:
        running.wait_for(lambda: notes.pids("stream"), what="the stream")
        assert running.stop() == 0
        stream.sock.close()
    assert notes.pids("shutting") == ready_pids(running)
    assert notes.pids("shutdown") == ([] if forever else ready_pids(running))
    assert ("lifespan shutdown did not end within 1 s" in running.log) == forever


def test_drain_delay_goes_on_accepting(server: Start) -> None:
    """While load balancers look away, connections are taken as before. Fails with drain_delay taken for 0."""
    running = server(APP, "--drain-delay", "1.5")
    running.terminate()
    running.wait_log("stopping")
    for _ in range(3):
        assert running.fetch().status == 200
    assert running.wait_exit() == 0


# ── answers that come early ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("who", [pytest.param("the server", marks=variant), "the app"])
def test_trap_65_an_early_answer_is_read_while_the_body_still_comes(server: Start, who: str) -> None:
    """A client that sends all of its body before it reads: neither EPIPE nor a reset, and it reads the 413.

    Fails with transport.close() in place of the half-close in Connection.linger: the client is reset while it sends.
    """
    running = server(APP, *(("--limit-request-body", "1000") if who == "the server" else ()))
    body = b"x" * (1 << 21)
    for _ in range(5):
        with running.connect() as connection:
            # Else the kernel takes all of it, and Linux lets a client read its answer in spite of a reset.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            head = f"POST /refuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.send(head.encode() + body)
            assert connection.read_response().status == 413
    assert running.stop() == 0


def test_trap_64_no_idle_timeout_is_promised(server: Start) -> None:
    """A `Keep-Alive: timeout=` would have to be below keep_alive, or clients trust a connection that is just closed."""
    running = server(APP)
    with running.connect() as connection:
        assert connection.request("/").header("keep-alive") is None
        assert connection.request("/", headers={"Connection": "keep-alive"}).header("keep-alive") is None
