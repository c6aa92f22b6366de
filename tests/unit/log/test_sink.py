"""Sinks over real pipes, terminals, sockets, files and full disks (docs/traps.md, 73 to 81)."""

import asyncio
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aserver.log import sink
from aserver.log.descriptor import PIPE_LIMIT, Descriptor
from aserver.log.opening import SinkKind, kind_of, open_log, open_private
from aserver.log.sink import ACCESS_BOUND, CUT, Sink, SinkState
from aserver.log.waker import Wait, Waker
from tests.harness import PATIENCE, eventually, tmpfs
from tests.unit.log.lines import add_line
from tests.unit.log.streams import both_loops, lines, make_stream, read_all, read_until, run


def reports_of(out: Sink) -> list[str]:
    reports: list[str] = []
    out.report = lambda _sink, text: reports.append(text)
    return reports


# ── 73: a reader that does not read ──────────────────────────────────────────────────────────


@both_loops
def test_trap_73_a_full_pipe_delays_nothing_and_drops_are_counted(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], pipe: tuple[int, int]
) -> None:
    reader, writer = pipe

    async def main() -> None:
        out = Sink.for_fd(open_private(writer), name="access log", bound=ACCESS_BOUND)
        reports = reports_of(out)
        out.attach(asyncio.get_running_loop())
        sent = lines(30_000)  # 3 MB, of which a pipe holds 64 kB and the out 1 MB
        for start in range(0, len(sent), 100):
            for line in sent[start : start + 100]:
                add_line(out, line.decode())
            await asyncio.sleep(0)  # the loop turns: nothing waits for the reader
        assert out.state is SinkState.BLOCKED
        got = await read_until(reader, lambda _: out.state is SinkState.OPEN)
        kept = got.splitlines(keepends=True)
        assert kept == sorted(set(kept))
        assert set(kept) <= set(sent)
        assert len(got) > ACCESS_BOUND
        [report] = reports
        assert f"access log: {30_000 - len(kept)} lines were lost" in report
        assert "its reader does not read" in report
        add_line(out, "again\n")
        await asyncio.sleep(0)
        await eventually(lambda: read_all(reader) == b"again\n")
        assert not asyncio.get_running_loop().remove_writer(out.fd)
        out.close()

    run(loop_factory, main)


@both_loops
def test_trap_73_no_error_record_is_lost_below_the_bound(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], pipe: tuple[int, int]
) -> None:
    reader, writer = pipe

    async def main() -> None:
        out = Sink.for_fd(open_private(writer), name="error log")
        reports = reports_of(out)
        out.attach(asyncio.get_running_loop())
        sent = lines(38_000)  # 3.8 MB
        for line in sent:
            out.write(line)
        got = await read_until(reader, lambda _: out.state is SinkState.OPEN)
        assert got == b"".join(sent)
        assert reports == []
        out.close()

    run(loop_factory, main)


def test_trap_73_without_a_loop_the_next_write_tries_again(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    out = Sink.for_fd(open_private(writer))
    sent = lines(2000)
    for line in sent:
        out.write(line)
    got = read_all(reader)
    assert out.state is SinkState.BLOCKED
    while out.state is SinkState.BLOCKED:
        out.write(b"x" * 99 + b"\n")
        sent.append(b"x" * 99 + b"\n")
        got += read_all(reader)
    out.close()
    assert got + read_all(reader) == b"".join(sent)


def test_close_waits_a_bounded_time_for_a_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sent = lines(5000)
    stuck = Sink.for_fd(open_private(writer))
    for line in sent:
        stuck.write(line)
    lost = stuck.close(0.05)
    got = read_all(reader)
    assert len(got) == (5000 - lost) * 100
    slow = Sink.for_fd(open_private(writer))
    for line in sent:
        slow.write(line)
    os.set_blocking(reader, True)
    collected: list[bytes] = []

    def collect() -> None:
        while sum(map(len, collected)) < 500_000:
            collected.append(os.read(reader, 4096))

    thread = threading.Thread(target=collect)
    thread.start()
    assert slow.close(PATIENCE) == 0
    thread.join()
    assert b"".join(collected) == b"".join(sent)


# ── 74: the flags of what was inherited ──────────────────────────────────────────────────────


def test_trap_74_a_default_timeout_of_the_app_is_not_applied(descriptors: list[int], tmp_path: Path) -> None:
    _reader, writer = make_stream("socket", tmp_path, descriptors)
    socket.setdefaulttimeout(5)
    try:
        Sink.for_fd(open_private(writer)).close()
        assert socket.getdefaulttimeout() == 5
    finally:
        socket.setdefaulttimeout(None)
    assert os.get_blocking(writer)


# ── 77: lines of several processes ───────────────────────────────────────────────────────────

WRITE_LONG_LINES = """
import os, sys, random
from aserver.log.sink import Sink
from tests.unit.log.lines import add_line
name, low, high, count = sys.argv[1], *map(int, sys.argv[2:5])
out = Sink.for_fd(int(sys.argv[5]))
for number in range(count):
    width = random.randint(low, high)
    add_line(out, f"{name} {number} {width} ".ljust(width, name) + "\\n")
    out.write(f"{name} record {number}\\n".encode())
sys.exit(out.close(20))
"""


def start_writers(fd: int, low: int, high: int, count: int) -> list["subprocess.Popen[bytes]"]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_LONG_LINES, name, str(low), str(high), str(count), str(fd)], pass_fds=[fd]
        )
        for name in "abcd"
    ]


def test_trap_77_lines_of_any_length_stay_whole_in_a_file(tmp_path: Path) -> None:
    fd = open_log(str(tmp_path / "log"), which="access")
    for writer in start_writers(fd, 200, 300_000, 60):
        assert writer.wait(PATIENCE) == 0
    os.close(fd)
    got = (tmp_path / "log").read_bytes().splitlines()
    assert len(got) == 4 * 60 * 2
    for line in got:
        name, number, width, *_ = line.split(b" ")
        assert number == b"record" or line == b" ".join([name, number, width, b""]).ljust(int(width), name)


def test_trap_77_lines_stay_whole_in_a_pipe_and_long_ones_are_cut(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fd = open_private(writer)
    writers = start_writers(fd, 200, 9000, 200)  # less than ACCESS_BOUND each
    os.close(fd)
    os.close(writer)
    os.set_blocking(reader, True)
    with open(reader, "rb", closefd=False) as stream:
        got = stream.read().splitlines(keepends=True)
    assert [each.wait(PATIENCE) for each in writers] == [0] * 4
    assert len(got) == 4 * 200 * 2
    for line in got:
        name, number, width, *_ = line.split(b" ")
        if number == b"record":
            continue
        whole = b" ".join([name, number, width, b""]).ljust(int(width), name) + b"\n"
        if len(whole) > PIPE_LIMIT:
            whole = whole[: PIPE_LIMIT - len(CUT)] + CUT
        assert line == whole


# ── 78: a full disk ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    with tmpfs(tmp_path / "disk", "size=1m") as disk:
        yield disk


@both_loops
def test_trap_78_a_full_disk(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "RETRY_PAUSE", 0.02)

    async def main() -> None:
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 900_000)
        out = Sink.for_fd(open_log(str(small_disk / "log"), which="access"), name="access log", bound=200_000)
        reports = reports_of(out)
        out.attach(asyncio.get_running_loop())
        sent = lines(6000, width=101)  # 606 kB on 148 kB of disk
        for start in range(0, len(sent), 50):
            for line in sent[start : start + 50]:
                add_line(out, line.decode())
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)  # several tries
        assert out.state is SinkState.FULL
        [report] = reports
        assert report.startswith("cannot write the access log: No space left on device; lines are kept up to 200000 ")
        ballast.unlink()
        await eventually(lambda: out.state is SinkState.OPEN)
        add_line(out, "after\n")
        out.close()
        got = (small_disk / "log").read_bytes().splitlines(keepends=True)
        whole = [line for line in got if len(line) == 101]
        odd = [line for line in got if len(line) != 101]
        assert whole == sent[: len(whole)]
        assert odd[-1] == b"after\n"
        # At most one torn line, which ends where the next one begins.
        assert len(odd) <= 2
        assert f"access log: {6000 - len(whole)} lines were lost" in reports[1]
        assert len(reports) == 2

    run(loop_factory, main)


def test_trap_78_one_complaint_in_ten_seconds(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    (small_disk / "ballast").write_bytes(b"x" * (1 << 20))
    out = Sink.for_fd(open_log(str(small_disk / "log"), which="error"), bound=1000)
    reports = reports_of(out)
    tries = 0
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        nonlocal tries
        tries += 1
        return write(fd, data)

    monkeypatch.setattr(os, "write", counted)
    for _ in range(250):
        clock += 0.1
        out.write(b"x" * 99 + b"\n")
    assert len(reports) == 3  # in 25 seconds
    assert tries <= 26  # once per RETRY_PAUSE, however much is written
    (small_disk / "ballast").unlink()
    clock += 2
    out.write(b"after\n")
    assert "240 lines were lost in 26.9 s (No space left on device)" in reports[-1]
    assert (small_disk / "log").read_bytes() == b"\n" + (b"x" * 99 + b"\n") * 10 + b"after\n"
    monkeypatch.undo()
    out.close()


# ── 79: rotation ─────────────────────────────────────────────────────────────────────────────


@both_loops
def test_trap_79_rotation_loses_nothing(loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    path = tmp_path / "log"
    sent = lines(14_000)

    async def main() -> None:
        out = Sink.for_fd(open_log(str(path), which="access"))
        out.attach(asyncio.get_running_loop())
        number = out.fd
        for start in range(0, len(sent), 50):
            for line in sent[start : start + 50]:
                add_line(out, line.decode())
            if start % 1000 == 0:  # in the middle of a tick
                path.rename(tmp_path / f"log.{start:06d}")
                out.replace(open_log(str(path), which="access"))
            await asyncio.sleep(0)
        assert out.fd == number
        out.close()

    run(loop_factory, main)
    files = [*sorted(tmp_path.glob("log.*")), path]
    assert len(files) == 15
    assert b"".join(file.read_bytes() for file in files) == b"".join(sent)


def test_trap_79_copytruncate_leaves_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    out = Sink.for_fd(open_log(str(path), which="access"))
    out.write(b"old\n")
    os.truncate(path, 0)
    out.write(b"new\n")
    out.close()
    assert path.read_bytes() == b"new\n"


WORKER_WITHOUT_RIGHTS = """
import os, socket, sys
from aserver.log.sink import Sink
from tests.unit.log.lines import add_line
channel = socket.socket(fileno=int(sys.argv[1]))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    open(sys.argv[2], "ab")
except PermissionError:
    pass
else:
    sys.exit("the file could be opened")
out = None
number = 0
while True:
    message, fds, _flags, _address = socket.recv_fds(channel, 10, 1)
    if not message:
        break
    if out is None:
        out = Sink.for_fd(fds[0])
    else:
        out.replace(fds[0])
    for _ in range(100):
        add_line(out, "%07d\\n" % number)
        number += 1
    channel.send(b"done")
out.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="dropping privileges takes root")
def test_trap_79_a_worker_without_rights_gets_the_new_file(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "log"
    ours, theirs = socket.socketpair()
    with ours:
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER_WITHOUT_RIGHTS, str(theirs.fileno()), str(path)], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        ours.settimeout(PATIENCE)
        for rotation in range(14):
            if rotation:
                path.rename(tmp_path / f"log.{rotation:02d}")
            fd = open_log(str(path), which="access")
            socket.send_fds(ours, [b"log"], [fd])
            os.close(fd)
            assert ours.recv(10) == b"done"
    assert worker.wait(PATIENCE) == 0
    got = b"".join(file.read_bytes() for file in [*sorted(tmp_path.glob("log.*")), path])
    assert got == b"".join(b"%07d\n" % number for number in range(1400))


@both_loops
def test_replacing_a_blocked_sink_moves_what_is_kept(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], pipe: tuple[int, int], tmp_path: Path
) -> None:
    reader, writer = pipe

    async def main() -> None:
        out = Sink.for_fd(open_private(writer))
        out.attach(asyncio.get_running_loop())
        sent = lines(3000)
        for line in sent:
            out.write(line)
        await asyncio.sleep(0)
        out.replace(open_log(str(tmp_path / "log"), which="error"))
        assert out.kind is SinkKind.FILE
        out.write(b"last\n")
        assert read_all(reader) + (tmp_path / "log").read_bytes() == b"".join(sent) + b"last\n"
        out.close()

    run(loop_factory, main)


# ── 80: nobody reads any more ────────────────────────────────────────────────────────────────


@both_loops
@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
@pytest.mark.parametrize("blocked", [False, True], ids=["idle", "blocked"])
def test_trap_80_a_dead_reader_neither_kills_nor_spins(
    kind: str,
    blocked: bool,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    tmp_path: Path,
    descriptors: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = make_stream(kind, tmp_path, descriptors)
    wakes = 0

    class CountingWaker(Waker):
        def __init__(self, descriptor: Descriptor, waits: Callable[[], Wait], resume: Callable[[], None]) -> None:
            def counted() -> None:
                nonlocal wakes
                wakes += 1
                resume()

            super().__init__(descriptor, waits, counted)

    monkeypatch.setattr(sink, "Waker", CountingWaker)

    async def main() -> None:
        out = Sink.for_fd(open_private(writer), name="access log")
        os.close(writer)
        reports = reports_of(out)
        out.attach(asyncio.get_running_loop())
        for line in lines(5000 if blocked else 1):
            add_line(out, line.decode())
        await asyncio.sleep(0)
        os.close(reader)
        for _ in range(50):
            add_line(out, "lost\n")
            await asyncio.sleep(0.002)
        assert out.state is SinkState.BROKEN
        assert len(reports) == 1
        assert "cannot write the access log: " in reports[0]
        assert wakes <= 5
        assert not asyncio.get_running_loop().remove_writer(out.fd)
        out.close()

    run(loop_factory, main)


def test_trap_80_a_reader_that_comes_back_is_told_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "RETRY_PAUSE", 0.0)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    out = Sink.for_fd(open_log(str(path), which="error"), name="error log")
    reports = reports_of(out)
    os.close(reader)
    for line in lines(3):
        out.write(line)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    out.write(b"back\n")
    assert read_all(reader) == b"back\n"
    assert "error log: 3 lines were lost" in reports[-1]
    os.close(reader)
    out.close()


# ── 81 and the rest ──────────────────────────────────────────────────────────────────────────


@both_loops
def test_trap_81_one_write_a_tick(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        if fd == out.fd:
            writes.append(data.count(b"\n"))
        return write(fd, data)

    out = Sink.for_fd(open_log(str(tmp_path / "log"), which="access"))

    async def main() -> None:
        out.attach(asyncio.get_running_loop())
        for line in lines(50):
            add_line(out, line.decode())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for line in lines(600, 50):
            add_line(out, line.decode())
        assert writes == [50]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert writes == [50, 600]

    monkeypatch.setattr(os, "write", counted)
    run(loop_factory, main)
    monkeypatch.undo()
    out.close()
    assert (tmp_path / "log").read_bytes() == b"".join(lines(650))


def test_a_forked_child_does_not_write_its_parents_lines(pipe: tuple[int, int]) -> None:
    """A blocked out holds lines when the zygote forks: they are written once, by who wrote them."""
    reader, writer = pipe
    out = Sink.for_fd(open_private(writer))
    sent = lines(1200)  # less than two times what a pipe holds
    for line in sent:
        out.write(line)
    got = read_all(reader)
    child = os.fork()
    if child == 0:
        out.write(b"child\n")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    out.write(b"parent\n")
    out.close()
    got += read_all(reader)
    assert got.replace(b"child\n", b"") == b"".join(sent) + b"parent\n"
    assert got.count(b"child\n") == 1


def test_lines_from_several_threads_stay_whole_and_in_order(tmp_path: Path, descriptors: list[int]) -> None:
    reader, writer = make_stream("terminal", tmp_path, descriptors)  # it takes parts of lines
    out = Sink.for_fd(open_private(writer))
    os.set_blocking(reader, True)

    def work(name: str) -> None:
        for number in range(500):
            out.write(f"{name} {number} ".encode().ljust(500, name.encode()) + b"\n")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    got = b""
    while got.count(b"\n") < 2000:
        assert select.select([reader], [], [], PATIENCE)[0]
        got += os.read(reader, 65536)
        out.write(b"")
    for thread in threads:
        thread.join()
    out.close()
    for name in "abcd":
        mine = [line for line in got.splitlines() if line.startswith(name.encode())]
        assert mine == [f"{name} {number} ".encode().ljust(500, name.encode()) for number in range(500)]


def test_an_exception_from_a_signal_handler_does_not_leave_the_turn_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Sink.for_fd(open_log(str(tmp_path / "log"), which="error"))

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        out.write(b"one\n")
    monkeypatch.undo()
    out.write(b"two\n")
    out.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_write_inside_a_write_keeps_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a signal handler that runs between two bytecodes of `write`."""
    out = Sink.for_fd(open_log(str(tmp_path / "log"), which="error"))
    write = os.write
    inner = [b"three\n", b"two\n"]

    def reentered(fd: int, data: bytes) -> int:
        if inner:
            out.write(inner.pop())
        return write(fd, data)

    monkeypatch.setattr(os, "write", reentered)
    out.write(b"one\n")
    monkeypatch.undo()
    out.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\n"


def test_a_closed_sink_swallows(tmp_path: Path) -> None:
    out = Sink.for_fd(open_log(str(tmp_path / "log"), which="error"))
    number = out.fd
    out.close()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    if other != number:  # another test's leftover was collected just now, and its number is lower
        os.dup2(other, number)
        os.close(other)
        other = number
    out.write(b"late\n")
    add_line(out, "late\n")
    os.close(other)
    assert (tmp_path / "other").read_bytes() == b""


@both_loops
def test_lines_after_the_loop_closed_are_written(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    out = Sink.for_fd(open_log(str(tmp_path / "log"), which="error"))

    async def main() -> None:
        out.attach(asyncio.get_running_loop())
        add_line(out, "one\n")

    run(loop_factory, main)
    add_line(out, "two\n")
    out.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_closed_sink_closes_the_file_that_it_is_to_go_on_in(tmp_path: Path) -> None:
    """A worker's log may be reopened at the worker's last moment. Fails without the look at `fd` in `Sink.replace`."""
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    closed = Sink(log, kind_of(log), name="log", bound=ACCESS_BOUND)
    closed.close()
    fd = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    closed.replace(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
