"""Clients that mean ill, against the real command: they are answered, cut off, and nobody else notices.

Timeouts are set to a second, and fire up to two seconds late, because one coarse timer serves all connections.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.harness import RawConnection, ServerProcess, fetch

pytestmark = pytest.mark.process

APP = "tests.apps.raw:app"
Start = Callable[..., ServerProcess]

HEAD = b"GET / HTTP/1.1\r\nHost: t\r\n"
POST = b"POST /upload HTTP/1.1\r\nHost: t\r\n"
#: Connections of a crowd: each attack is made by that many at once.
CROWD = 200


@contextmanager
def crowd(server: ServerProcess, size: int = CROWD) -> Iterator[list[RawConnection]]:
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(size)]


@contextmanager
def bystander(server: ServerProcess) -> Iterator[None]:
    """An honest client asks all the time: nothing fails, and it goes on being answered among the others."""
    done = threading.Event()
    answered = [0]
    failures: list[str] = []

    def ask() -> None:
        try:
            with server.connect() as connection:
                while not done.is_set():
                    response = connection.request()
                    answered[0] += 1
                    if response.status != 200:
                        failures.append(f"status {response.status}")
        except (AssertionError, OSError) as error:
            failures.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
        before = answered[0]
        server.wait_for(lambda: failures or answered[0] > before + 20, what="an honest client to be answered")
    finally:
        done.set()
        thread.join()
    assert not failures, failures[:3]


def last_words(connection: RawConnection) -> tuple[int, bool]:
    """The status of the answer, and whether the connection then ended in order (and not with a reset)."""
    response = connection.read_response()
    try:
        return response.status, connection.read_to_end() == b""
    except ConnectionResetError:
        return response.status, False


def test_slowloris(server: Start) -> None:
    """Heads that never end, a byte at a time: 408 when `header_timeout` is over, counted from the first chance."""
    running = server(APP, "--header-timeout", "1s")
    with crowd(running) as attackers, bystander(running):
        for attacker in attackers:
            attacker.send(HEAD)
        answered: set[RawConnection] = set()

        def all_are_answered() -> bool:
            for attacker in set(attackers) - answered:
                attacker.sock.setblocking(False)
                with suppress(OSError):
                    if attacker.sock.recv(1, socket.MSG_PEEK):
                        answered.add(attacker)
                        continue
                with suppress(OSError):
                    attacker.sock.send(b"X")  # a trickle does not put it off
            return len(answered) == len(attackers)

        running.wait_for(all_are_answered, what="408 for everybody")
        for attacker in attackers:
            attacker.sock.settimeout(20)
            assert last_words(attacker) == (408, True)


def test_silence(server: Start) -> None:
    """Who never says a word is closed without an answer, which he would take for one to his next request."""
    running = server(APP, "--header-timeout", "1s")
    with crowd(running) as attackers, bystander(running):
        for attacker in attackers:
            assert attacker.read_to_end() == b""


def test_idle_connections_end(server: Start) -> None:
    running = server(APP, "--keep-alive", "1s")
    with crowd(running, 20) as clients:
        for client in clients:
            assert client.request().status == 200
        for client in clients:
            assert client.read_to_end() == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_slow_body(server: Start, framing: bytes) -> None:
    """A body that stops coming: 408 when there was no piece for `body_timeout`."""
    running = server(APP, "--body-timeout", "1s")
    with crowd(running) as attackers, bystander(running):
        for attacker in attackers:
            attacker.send(POST + framing + b"\r\n5\r\nabc")
        for attacker in attackers:
            assert last_words(attacker) == (408, True)


def test_slow_reader(server: Start) -> None:
    """Who asks for much and reads nothing is cut off after `write_timeout`, and holds no more than a window's worth."""
    running = server(APP, "--write-timeout", "1s")
    with crowd(running, 50) as attackers, bystander(running):
        for attacker in attackers:
            attacker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            attacker.send(b"GET /download HTTP/1.1\r\nHost: t\r\n\r\n" * 100)
        (worker,) = running.workers()

        def all_are_cut_off() -> bool:
            with running.connect():
                return len(sockets_of(worker.pid)) < 10

        running.wait_for(all_are_cut_off, what="the slow readers to be cut off")


def sockets_of(pid: int) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            if target.startswith("socket:"):
                found.append(target)
    return found


@pytest.mark.parametrize(
    ("flood", "status"),
    [
        pytest.param(HEAD + b"A: b\r\n" * 100_000, 431, id="fields"),
        pytest.param(HEAD + b"A: " + b"b" * 1_000_000, 431, id="field"),
        pytest.param(b"GET /" + b"a" * 1_000_000, 414, id="request line"),
        pytest.param(POST + b"Content-Length: 999999999\r\n\r\n" + b"x" * 1_000_000, 413, id="body"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 100_000, 431, id="trailers"),
        pytest.param(b"\0" * 1_000_000, 400, id="garbage"),
    ],
)
def test_floods_are_answered_and_the_answer_can_be_read(server: Start, flood: bytes, status: int) -> None:
    """No reset over what the client still sends: it gets the answer, though it reads only when all is sent."""
    running = server(APP, "--limit-request-body", "1M")
    with crowd(running, 20) as attackers, bystander(running):
        for attacker in attackers:
            with suppress(ConnectionError):
                attacker.send(flood)
            assert last_words(attacker) == (status, True)


def test_too_many_at_once_get_503_and_when_to_come_again(server: Start) -> None:
    running = server(APP, "--limit-concurrency", "2")
    with running.connect() as first, running.connect() as second:
        for client in (first, second):
            client.send(b"GET /slow?5 HTTP/1.1\r\nHost: t\r\n\r\n")

        def refused() -> bool:
            response = fetch(running.where, "/")
            assert response.status == 200 or response.header("retry-after") == "1"
            return response.status == 503

        running.wait_for(refused, what="503")
    running.wait_for(lambda: fetch(running.where, "/").status == 200, what="room again")


def test_a_flood_of_pipelined_requests_is_held_back(server: Start) -> None:
    """Memory stays where it was: what is not served yet stays with the client."""
    running = server(APP)
    (worker,) = running.workers()
    fetch(running.where, "/")

    def memory() -> int:
        with open(f"/proc/{worker.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    before = memory()
    with crowd(running, 20) as attackers, bystander(running):
        for attacker in attackers:
            attacker.sock.setblocking(False)
        sent = 0
        for _ in range(200):
            for attacker in attackers:
                with suppress(BlockingIOError, ConnectionError):
                    sent += attacker.sock.send(b"GET /slow?30 HTTP/1.1\r\nHost: t\r\n\r\n" * 200)
        assert sent > 20 * 100_000
        assert memory() - before < 100 * 2**20
