"""Several writers on a terminal: half a line keeps the others off until it is out, a moment does not."""

import contextlib
import fcntl
import logging
import os
import select
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator
from math import inf

import pytest

from aserver.config import Config
from aserver.ipc.board import BoardFile, HalfLine
from aserver.log import descriptor
from aserver.log.opening import SinkKind, open_private
from aserver.log.setup import configure
from aserver.log.sink import ACCESS_BOUND, Sink, SinkState
from tests.harness import PATIENCE
from tests.unit.log.lines import add_line

WRITER = """
import sys
from aserver.log.sink import Sink
from aserver.log.opening import open_log
sink = Sink.for_fd(open_log("-", which="error"))
for number in range(300):
    if number % 3 == 0:
        sink.replace(open_log("-", which="error"))  # as SIGUSR1 does
    sink.write((f"{sys.argv[1]}{number} " + sys.argv[1] * 900 + "\\n").encode())
sys.exit(sink.close(30))
"""

#: Takes a lock on the terminal that is its standard error, says so, and lets go when it is told, a moment later.
HOLDER = """
import fcntl, os, select, sys
fcntl.lockf(2, fcntl.LOCK_EX, 1, int(sys.argv[1]))
os.write(1, b"x")
os.read(0, 1)
select.select([], [], [], 0.03)
fcntl.lockf(2, fcntl.LOCK_UN)
"""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Reader and writer of a raw terminal."""
    reader, writer = os.openpty()
    tty.setraw(writer, termios.TCSANOW)
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


@contextlib.contextmanager
def held(writer: int, byte: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process with a lock."""
    command = [sys.executable, "-c", HOLDER, str(byte)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.read(1) == b"x"
            yield child
        finally:
            child.kill()


def read_all_of(reader: int, text: bytes) -> bool:
    """Whether what comes next is `text`; a terminal hands over what two writes left in one read or in two."""
    got = b""
    while len(got) < len(text):
        assert select.select([reader], [], [], PATIENCE)[0], got
        got += os.read(reader, 100)
    return got == text


def takes_more(sink: Sink) -> bool:
    sink.write(b"")
    return sink.state is SinkState.OPEN


def let_go(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdin is not None
    child.stdin.write(b"x")
    child.stdin.flush()


def locks_free_to_others(writer: int, byte: int) -> bool:
    look = f"import fcntl; fcntl.lockf(1, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, {byte})"
    child = subprocess.run([sys.executable, "-c", look], stdout=writer, stderr=subprocess.PIPE, check=False)
    assert child.returncode == 0 or b"BlockingIOError" in child.stderr
    return child.returncode == 0


def test_trap_77_lines_stay_whole_on_a_terminal_that_is_behind() -> None:
    reader, writer = os.openpty()
    tty.setraw(writer, termios.TCSANOW)
    children = [subprocess.Popen([sys.executable, "-c", WRITER, name], stderr=writer) for name in "abc"]
    os.close(writer)
    got = b""
    try:
        while piece := os.read(reader, 500):
            got += piece
    except OSError:  # EIO: the last writer is gone
        pass
    os.close(reader)
    assert [child.wait(PATIENCE) for child in children] == [0, 0, 0]
    expected = {f"{name}{number} {name * 900}".encode() for name in "abc" for number in range(300)}
    found = got.splitlines()
    assert len(found) == 900
    assert set(found) == expected


def test_trap_77_the_two_logs_of_a_process_on_a_terminal_that_is_behind(terminal: tuple[int, int]) -> None:
    """Record locks do not keep a process from itself: two sinks would write into each other's half lines."""
    reader, writer = terminal
    logs = configure(
        Config(),
        process="worker 1/g1",
        error_fd=open_private(writer),
        access_fd=open_private(writer),
        environ={"NO_COLOR": "1"},
    )
    got = b""
    try:
        assert logs.access is not None
        for number in range(60):
            logs.logger.error("e%d %s", number, "e" * 700)
            add_line(logs.access, f"a{number} {'a' * 700}\n")
            if number % 10 == 9:
                got += os.read(reader, 500)
        while True:
            logs.error.write(b"")
            if not select.select([reader], [], [], 0.1)[0]:
                break
            got += os.read(reader, 500)
        assert logs.error.state is SinkState.OPEN
    finally:
        logs.close(0)
        logging.getLogger("aserver").setLevel(logging.NOTSET)
        logging.getLogger("aserver").propagate = True
    found = got.decode().splitlines()
    assert [line for line in found if line.startswith("a")] == [f"a{number} {'a' * 700}" for number in range(60)]
    rest = [line.partition("ERROR ")[2] for line in found if not line.startswith("a")]
    assert rest == [f"e{number} {'e' * 700}" for number in range(60)]


def test_access_lines_leave_room_for_records_where_both_have_one_sink(terminal: tuple[int, int]) -> None:
    sink = Sink.for_fd(open_private(terminal[1]))
    try:
        while sink.state is SinkState.OPEN:
            add_line(sink, "a" * 4000 + "\n")
        for _ in range(2 * ACCESS_BOUND // 4000):
            add_line(sink, "a" * 4000 + "\n")
        lost = sink.lost
        assert lost > ACCESS_BOUND // 4001 - 10
        for _ in range(ACCESS_BOUND // 4000):
            sink.write(b"e" * 4000 + b"\n")
        assert sink.lost == lost
    finally:
        sink.close(0)


def test_the_moment_of_another_processs_write_is_waited_for(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the line would be in memory until the next look, and lost if this process is killed before."""
    monkeypatch.setattr(descriptor, "GATE_PATIENCE", PATIENCE)
    reader, writer = terminal
    sink = Sink.for_fd(open_private(writer))
    try:
        with held(writer, 0) as child:
            let_go(child)
            sink.write(b"line\n")
            assert sink.state is SinkState.OPEN
            assert read_all_of(reader, b"line\n")
    finally:
        sink.close(0)


def test_a_process_that_stands_still_in_its_write_costs_the_others_one_bounded_wait(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = terminal
    pauses: list[float] = []

    def counted(_r: object, _w: object, _x: object, seconds: float) -> tuple[list[int], list[int], list[int]]:
        pauses.append(seconds)
        return [], [], []

    sink = Sink.for_fd(open_private(writer))
    try:
        with held(writer, 0), monkeypatch.context() as patch:
            patch.setattr(select, "select", counted)
            sink.write(b"one\n")
            assert sink.state is SinkState.BLOCKED
            assert pauses
            pauses.clear()
            sink.write(b"two\n")
            assert not pauses
        sink.write(b"three\n")
        assert read_all_of(reader, b"one\ntwo\nthree\n")
    finally:
        sink.close(0)


def test_half_a_line_of_another_process_is_not_waited_for(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may last as long as the reader likes."""
    monkeypatch.setattr(descriptor, "GATE_PATIENCE", inf)
    reader, writer = terminal
    sink = Sink.for_fd(open_private(writer))
    try:
        with held(writer, 1):
            sink.write(b"one\n")
            assert sink.state is SinkState.BLOCKED
            assert locks_free_to_others(writer, 0), "others would wait at the gate"
        sink.write(b"two\n")
        assert read_all_of(reader, b"one\ntwo\n")
    finally:
        sink.close(0)


def test_half_a_line_of_ours_keeps_others_off_and_does_not_make_them_wait(terminal: tuple[int, int]) -> None:
    sink = Sink.for_fd(open_private(terminal[1]))
    try:
        while sink.state is SinkState.OPEN:
            sink.write(b"e" * 999 + b"\n")
        assert locks_free_to_others(terminal[1], 0)
        assert not locks_free_to_others(terminal[1], 1)
    finally:
        sink.close(0)


#: Fills the terminal that is its standard error until half a line is out, says so, and waits to be killed.
HALF_WRITER = """
import os, sys, time
from aserver.ipc.board import HalfLine
from aserver.log.sink import Sink, SinkState
from aserver.log.opening import open_private
sink = Sink.for_fd(open_private(2))
sink.descriptor.half = HalfLine(int(sys.argv[1]), 0)
while sink.state is SinkState.OPEN or not sink._offset:
    sink.write(b"k" * 999 + b"\\n")
print("half", flush=True)
time.sleep(600)
"""


def test_half_a_line_of_a_killed_process_is_ended_before_the_next(terminal: tuple[int, int]) -> None:
    """Its locks die with it, and say no more that its line has no end.

    Fails without `half.get()` in Descriptor: the next line stands behind the half one.
    """
    reader, writer = terminal
    board = BoardFile.create()
    command = [sys.executable, "-c", HALF_WRITER, str(board.fd)]
    killed = subprocess.Popen(command, stderr=writer, stdout=subprocess.PIPE, pass_fds=[board.fd])
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"half\n"
    sink = Sink.for_fd(open_private(writer))
    sink.descriptor.half = HalfLine(board.fd, 0)
    try:
        sink.write(b"ours\n")
        killed.kill()
        killed.wait(PATIENCE)
        got = b""
        while not got.endswith(b"and again\n"):
            assert select.select([reader], [], [], PATIENCE)[0]
            got += os.read(reader, 1 << 16)
            if not got.endswith(b"k" * 20) and sink.state is SinkState.OPEN and b"and again" not in got:
                sink.write(b"and again\n")
            sink.write(b"")
    finally:
        sink.close(0)
        killed.stdout.close()
        board.close()
    *whole, half, ours, again = got.splitlines()
    assert set(whole) == {b"k" * 999}
    assert 0 < len(half) < 999
    assert (ours, again) == (b"ours", b"and again")


def test_closing_another_descriptor_of_the_terminal_does_not_let_others_in(terminal: tuple[int, int]) -> None:
    """As a channel does that passes the logs on. It ends the record locks of a process (fcntl(2))."""
    sink = Sink.for_fd(open_private(terminal[1]))
    try:
        while sink.state is SinkState.OPEN:
            sink.write(b"e" * 999 + b"\n")
        os.close(os.dup(sink.fd))
        assert not locks_free_to_others(terminal[1], 1)
    finally:
        sink.close(0)


def test_a_forked_process_has_locks_of_its_own(terminal: tuple[int, int]) -> None:
    sink = Sink.for_fd(open_private(terminal[1]))
    try:
        while sink.state is SinkState.OPEN:
            sink.write(b"e" * 999 + b"\n")
        pid = os.fork()
        if pid == 0:
            sink.write(b"child\n")
            os._exit(0 if sink.state is SinkState.BLOCKED else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert not locks_free_to_others(terminal[1], 1), "the child's end did not end the parent's lock"
        while os.read(terminal[0], 1 << 16) and not takes_more(sink):
            pass
        assert locks_free_to_others(terminal[1], 1)
    finally:
        sink.close(0)


def test_without_a_description_of_its_own_the_process_locks(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptor, "_DESCRIPTION_LOCK", None)
    test_half_a_line_of_ours_keeps_others_off_and_does_not_make_them_wait(terminal)


def test_a_terminal_without_record_locks_is_written_to(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "no locks")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "fcntl", lambda *_: 0)
    monkeypatch.setattr(descriptor, "_DESCRIPTION_LOCK", None)
    reader, writer = terminal
    sink = Sink.for_fd(open_private(writer))
    try:
        assert sink.kind is SinkKind.TERMINAL
        sink.write(b"line\n")
        assert read_all_of(reader, b"line\n")
    finally:
        sink.close(0)
