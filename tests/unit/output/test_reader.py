"""The reader of captured output, in this process: a channel and pipes of the test's, and a log that it looks into."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aserver import unix
from aserver.ipc.channel import Channel
from aserver.ipc.messages import LeaveOutput, ToReader, WatchOutput
from aserver.log.opening import open_log
from aserver.log.sink import ERROR_BOUND
from aserver.output.reader import LONGEST_LINE, OutputReader
from tests.harness import PATIENCE
from tests.harness.waiting import turns_of_the_loop

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Stage:
    """A reader with the master's end of its channel."""

    def __init__(self) -> None:
        ours, theirs = unix.stream_pair()
        self.master: Channel[ToReader] = Channel(ours, ToReader)
        self.board = unix.memory_file("board", 4096)
        self.theirs: Channel[ToReader] = Channel(theirs, ToReader)
        self.task = asyncio.create_task(OutputReader(self.theirs, self.board).run())

    def watch(self, log: int, pid: int = 7, log_format: str = "json") -> tuple[int, int]:
        """Have pipes read; returns their writing ends. `log` is taken over."""
        pipes = [os.pipe(), os.pipe()]
        for reading, _ in pipes:
            os.set_blocking(reading, False)
        watch = WatchOutput(f"worker 1/g{pid}", pid, log_format, brief=False)
        self.master.send(watch, [log, *(reading for reading, _ in pipes)])
        for fd in (log, *(reading for reading, _ in pipes)):
            os.close(fd)
        return pipes[0][1], pipes[1][1]

    async def end(self) -> None:
        """Wait until the reader has left."""
        await asyncio.wait_for(self.task, PATIENCE)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    made.master.close()
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)
    made.theirs.close()
    os.close(made.board)


def _records(path: Path) -> list[tuple[object, ...]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [(each["process"], each["pid"], each["message"]) for each in records]


async def test_lines_are_records_and_the_last_one_needs_no_end(stage: Stage, tmp_path: Path) -> None:
    """Fails without the rest that is kept, without `finish` at the end, and if it leaves before the end."""
    path = tmp_path / "log"
    out, err = stage.watch(open_log(str(path), which="error"))
    os.write(out, b"one\ntwo\nhal")
    os.write(err, b"\xe2\x82\xac \xff \x1b[1m\n")
    await turns_of_the_loop()
    stage.master.send(LeaveOutput(at_once=False))
    os.write(out, b"f\n\nno end")
    os.close(err)
    await turns_of_the_loop()
    assert not stage.task.done()
    os.close(out)
    await stage.end()
    told = [text for process, pid, text in _records(path) if (process, pid) == ("worker 1/g7", 7)]
    assert [each for each in told if str(each).startswith("stdout")] == [
        "stdout: one",
        "stdout: two",
        "stdout: half",
        "stdout: ",
        "stdout: no end",
    ]
    assert [each for each in told if str(each).startswith("stderr")] == ["stderr: \u20ac \\xff \x1b[1m"]


async def test_a_line_without_an_end_is_logged_in_parts(stage: Stage, tmp_path: Path) -> None:
    """Fails without LONGEST_LINE: a progress bar that never ends its line would be kept for ever."""
    path = tmp_path / "log"
    out, err = stage.watch(open_log(str(path), which="error"))
    os.close(err)
    piece = b"x" * 4096
    for _ in range(LONGEST_LINE // len(piece) + 1):
        os.write(out, piece)
        await turns_of_the_loop()
    assert sum(len(str(text)) - len("stdout: ") for _, _, text in _records(path)) > LONGEST_LINE
    os.close(out)


async def test_it_leaves_at_the_masters_end_only_when_no_process_writes(stage: Stage, tmp_path: Path) -> None:
    """The master is killed, its workers drain. Fails if EOF of the channel ends the reader: they would get SIGPIPE."""
    path = tmp_path / "log"
    out, err = stage.watch(open_log(str(path), which="error"))
    stage.master.close()
    await turns_of_the_loop()
    os.write(out, b"still here\n")
    await turns_of_the_loop()
    os.close(out)
    os.close(err)
    await stage.end()
    assert _records(path) == [("worker 1/g7", 7, "stdout: still here")]


async def test_it_makes_room_for_another_reader_at_once(stage: Stage, tmp_path: Path) -> None:
    """What it has read is in the log, what it has not is left to the other."""
    path = tmp_path / "log"
    out, err = stage.watch(open_log(str(path), which="error"))
    os.write(out, b"begun")
    await turns_of_the_loop()
    stage.master.send(LeaveOutput(at_once=True))
    await stage.end()
    assert _records(path) == [("worker 1/g7", 7, "stdout: begun")]
    os.close(out)
    os.close(err)


async def test_a_log_that_is_not_read_holds_up_no_writer(stage: Stage) -> None:
    """Fails if it reads no more than its log takes: then the application's child waits for the log's reader.

    Each line is in the log or counted. Fails with the count of a write in place of that of its lines.
    """
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    out, err = stage.watch(writing)
    os.close(err)
    os.set_blocking(out, False)
    line, sent, got = b"y" * 999 + b"\n", 0, b""
    async with asyncio.timeout(PATIENCE):
        while sent < ERROR_BOUND * 5 // 4:
            with contextlib.suppress(BlockingIOError):
                sent += os.write(out, line * 4)
            await asyncio.sleep(0)
        while not (lost := re.search(rb"error log: (\d+) lines were lost", got)):
            with contextlib.suppress(BlockingIOError):
                got += os.read(reading, 1 << 20)
            await asyncio.sleep(0)
    assert got.count(b"stdout: yyy") + int(lost[1]) == sent // len(line)
    os.close(out)
    os.close(reading)


async def test_two_processes_share_a_log_each_in_the_format_of_its_settings(stage: Stage, tmp_path: Path) -> None:
    """A reload has changed `log_format`. Fails with a sink for each, which would take each other's locks on a terminal,
    and with a layout for both.
    """
    path = tmp_path / "log"
    before = len(unix.open_fds())
    ends = [*stage.watch(open_log(str(path), which="error"), 7, "text")]
    ends += stage.watch(open_log(str(path), which="error"), 8, "json")
    await turns_of_the_loop()
    assert len(unix.open_fds()) == before + 2 * 2 * 2 + 1
    for fd in ends:
        os.write(fd, b"here\n")
        os.close(fd)
    stage.master.send(LeaveOutput(at_once=False))
    await stage.end()
    texts = [line for line in path.read_text().splitlines() if not line.startswith("{")]
    objects = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    assert sorted(line.partition("worker")[2] for line in texts) == [
        " 1/g7 [7] INFO  stderr: here",
        " 1/g7 [7] INFO  stdout: here",
    ]
    assert sorted(each["message"] for each in objects) == ["stderr: here", "stdout: here"]
    assert {(each["process"], each["pid"]) for each in objects} == {("worker 1/g8", 8)}
