"""The pipes of captured output and their reader, a real process: it is killed, exchanged, missing, and told to end."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from aserver.config.build import Layer, build
from aserver.ipc.board import BoardFile
from aserver.master import programs
from aserver.master.output import Output
from aserver.master.resources import Resources, close_unused, provide
from tests.harness import eventually

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture
def resources(tmp_path: Path) -> Iterator[Resources]:
    values = {"target": "a:b", "errorlog": f"{tmp_path}/log", "bind": [f"unix:{tmp_path}/s"], "capture_output": True}
    made = provide(build([Layer("test", values)]), {})
    yield made
    close_unused(made, ())


@pytest.fixture
async def output(resources: Resources) -> AsyncIterator[Output]:
    board = BoardFile.create()
    made = Output({1: resources}, board.fd)
    yield made
    made.close()
    board.close()


def _begin(output: Output, serial: int = 1) -> list[int]:
    """A process with captured output; returns what it writes to."""
    with output.writing_ends(1, serial, f"worker {serial}/g1") as ends:
        mine = [os.dup(end) for end in ends]
    output.born(1, serial, 100 + serial)
    return mine


def _write(fd: int, data: bytes) -> int:
    """Write once; the number of bytes that there was room for."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


async def _logged(path: Path, text: str) -> None:
    await eventually(lambda: path.exists() and text in path.read_text())


async def test_the_readers_end_ends_no_writer_and_loses_nothing_that_it_had_not_read(
    output: Output, resources: Resources, tmp_path: Path
) -> None:
    """Fails if the master does not hold the reading ends (EPIPE), and if no other reader is started."""
    path = tmp_path / "log"
    out, err = _begin(output)
    os.write(out, b"first\n")
    await _logged(path, "worker 1/g1 [101] INFO  stdout: first\n")
    (first,) = output.pids
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: first not in output.pids)
    os.write(err, b"second\n")
    await _logged(path, "worker 1/g1 [101] INFO  stderr: second\n")
    path.rename(tmp_path / "log.1")  # rotated: another reader writes into the new file, the old one leaves
    resources.logs[0].reopen()
    output.exchange()
    await eventually(lambda: len(output.pids) == 1)
    os.write(out, b"third\n")
    await _logged(path, "stdout: third\n")
    os.write(out, b"last, without an end")
    os.close(out)
    os.close(err)
    output.close()
    assert "stdout: last, without an end\n" in path.read_text()
    assert not output.pids


async def test_pipes_are_closed_at_their_end_and_the_reader_leaves_with_the_last(output: Output) -> None:
    """Fails without `look`: each recycled worker would leave two descriptors open in the master."""
    ends = [*_begin(output, 1), *_begin(output, 2)]
    for fd in ends[:2]:
        os.close(fd)

    def left() -> int:
        output.look()
        return len(output.pipes)

    await eventually(lambda: left() == 1)
    assert output.pipes[0].serial == 2
    for fd in ends[2:]:
        os.close(fd)
    await eventually(lambda: left() == 0 and not output.pids)


async def test_a_reader_that_cannot_be_started_blocks_nobody(
    output: Output, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails without `_throw_away`: C code that prints would wait, in the event loop, for a reader that never comes."""

    def refuse(*_: object) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    with output.writing_ends(1, 1, "worker 1/g1") as ends:
        out = os.dup(ends[0])
    os.set_blocking(out, False)
    assert sum(iter(lambda: _write(out, bytes(4096)), 0)) == 65536
    monkeypatch.setattr(programs, "spawn", refuse)
    with caplog.at_level(logging.ERROR, "aserver.master"):
        output.born(1, 1, 101)
    assert "cannot be started (Resource temporarily unavailable); another follows in 1 s, 65536 bytes" in caplog.text
    assert os.write(out, b"on") == 2
    os.close(out)


async def test_without_capture_output_there_is_nothing(resources: Resources) -> None:
    resources.config = msgspec.structs.replace(resources.config, capture_output=False)
    output = Output({1: resources}, 0)
    with output.writing_ends(1, 0, "zygote g1") as ends:
        assert ends == []
    output.born(1, 0, 5)
    output.exchange()
    assert (output.pids, output.pipes) == ([], [])
