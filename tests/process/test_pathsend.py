"""Files sent by name from the real server: to clients that read slowly, not at all, and while a file is cut."""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import PATIENCE, ServerProcess

pytestmark = pytest.mark.process

SIZE = 32 << 20


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def running(files: Path) -> Iterator[ServerProcess]:
    options = ("--pathsend", "--workers", "1", "--write-timeout", "2")
    with ServerProcess("tests.apps.files:app", *options, env={"FILES": str(files)}) as server:
        server.wait_ready()
        yield server


@pytest.fixture
def ask(running: ServerProcess) -> Iterator[Callable[[str], socket.socket]]:
    """Ask for a file on a connection that takes little at a time."""
    opened: list[socket.socket] = []

    def ask(name: str) -> socket.socket:
        sock = socket.socket()
        opened.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.settimeout(PATIENCE)
        sock.connect(running.where)
        sock.sendall(f"GET /{name} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
        return sock

    yield ask
    for sock in opened:
        sock.close()


def _read(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_slow_client_gets_the_whole_file(ask: Callable[[str], socket.socket], files: Path) -> None:
    """Byte for byte, over many waits for room. Fails without add_writer in SentFile."""
    data = os.urandom(SIZE)
    (files / "slow").write_bytes(data)
    assert _read(ask("slow")).partition(b"\r\n\r\n")[2] == data


def test_a_file_that_is_cut_while_it_is_sent(
    ask: Callable[[str], socket.socket], files: Path, running: ServerProcess
) -> None:
    """The client sees that it is not whole; others are served. Fails if a sendfile(2) of nothing counts as the end."""
    with (files / "cut").open("wb") as file:
        file.truncate(SIZE)
    sock = ask("cut")
    assert sock.recv(100)
    os.truncate(files / "cut", 1000)
    got = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1 << 16):
            got += len(piece)
    assert got < SIZE
    running.wait_log("were announced")
    (files / "small").write_bytes(b"whole")
    assert running.fetch("/small").body == b"whole"


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_a_client_that_does_not_read_is_let_go(
    ask: Callable[[str], socket.socket], files: Path, running: ServerProcess
) -> None:
    """After `write_timeout`, with all descriptors. Fails without `pause_writing` in SentFile."""
    with (files / "unread").open("wb") as file:
        file.truncate(SIZE)
    (files / "small").write_bytes(b"whole")
    (worker,) = running.workers()

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{worker.pid}/fd"))

    assert running.fetch("/small").status == 200
    before = descriptors()
    ask("unread")
    running.wait_for(lambda: descriptors() > before, what="the request")
    running.wait_for(lambda: descriptors() <= before, what="the descriptors to be closed")
