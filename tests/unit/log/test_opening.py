"""A log is opened on whatever it leads to: pipes, terminals, sockets, devices, files (docs/traps.md, 74 and 75)."""

import asyncio
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aserver.errors import ConfigError
from aserver.log.opening import SinkKind, kind_of, open_log, open_private
from aserver.log.sink import Sink, SinkState
from tests.harness import PATIENCE
from tests.unit.log.streams import both_loops, lines, make_stream, read_all, read_until, run

KINDS = ["pipe", "terminal", "socket", "file"]


@both_loops
@pytest.mark.parametrize("kind", KINDS)
def test_trap_74_an_inherited_description_stays_blocking(
    kind: str, loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path, descriptors: list[int]
) -> None:
    reader, writer = make_stream(kind, tmp_path, descriptors)
    before = fcntl.fcntl(writer, fcntl.F_GETFL)

    async def main() -> None:
        out = Sink.for_fd(open_private(writer))
        assert out.kind is SinkKind(kind)
        assert out.fd > 2
        assert not os.get_inheritable(out.fd)
        out.attach(asyncio.get_running_loop())
        sent = lines(10_000)
        for line in sent:
            out.write(line)
        await asyncio.sleep(0.01)  # the loop has watched it by now, if it ever does
        assert fcntl.fcntl(writer, fcntl.F_GETFL) == before
        got = await read_until(reader, lambda size: size >= 1_000_000)
        assert got == b"".join(sent)
        out.close()
        assert fcntl.fcntl(writer, fcntl.F_GETFL) == before

    run(loop_factory, main)


def test_a_pipe_that_cannot_be_opened_again_is_asked_first(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    reader, writer = pipe
    monkeypatch.setattr(os, "open", refuse)
    out = Sink.for_fd(open_private(writer))
    monkeypatch.undo()
    assert os.get_blocking(out.fd)
    sent = lines(3000)
    for line in sent:
        out.write(line)  # would hang here
    assert out.state is SinkState.BLOCKED
    got = b""
    while out.state is SinkState.BLOCKED:
        got += read_all(reader)
        out.flush()
        out.write(b"")
    out.close()
    assert got + read_all(reader) == b"".join(sent)


WRITE_TO_STDOUT = """
import os, sys
from aserver.log.sink import Sink
from aserver.log.opening import open_log
out = Sink.for_fd(open_log("-", which="access"))
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    out.write(b"%07d\\n" % number)
out.close()
"""


@pytest.mark.parametrize("kind", [*KINDS, "closed"])
def test_trap_75_whatever_standard_output_is(kind: str, tmp_path: Path, descriptors: list[int]) -> None:
    reader, writer = (-1, -1) if kind == "closed" else make_stream(kind, tmp_path, descriptors)
    script = [sys.executable, "-c", WRITE_TO_STDOUT, "0", "100"]
    if kind == "closed":
        script = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *script]
        assert subprocess.run(script, check=True, timeout=PATIENCE, capture_output=True).stderr == b""
        return
    subprocess.run(script, stdout=writer, check=True, timeout=PATIENCE)
    assert read_all(reader) == b"".join(b"%07d\n" % number for number in range(100))


@pytest.mark.parametrize("how", [">", ">>"])
def test_trap_75_a_file_given_by_redirection_is_not_overwritten(how: str, tmp_path: Path) -> None:
    """Four processes share one description, hence one offset; what the shell writes before and after stays too."""
    file = tmp_path / "out"
    ranges = " ".join(f'"$@" {start} {start + 500} &' for start in range(0, 2000, 500))
    shell = f'{{ echo before; {ranges} wait; echo after; }} {how} "$OUT"'
    subprocess.run(
        ["/bin/sh", "-c", shell, "sh", sys.executable, "-c", WRITE_TO_STDOUT],
        env={**os.environ, "OUT": str(file)},
        check=True,
        timeout=PATIENCE,
    )
    first, *middle, last = file.read_bytes().splitlines()
    assert (first, last) == (b"before", b"after")
    assert sorted(middle) == [b"%07d" % number for number in range(2000)]


def test_a_log_path_may_be_a_fifo_without_reader(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    out = Sink.for_fd(open_log(str(path), which="error"))
    out.write(b"early\n")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert read_all(reader) == b"early\n"
    os.close(reader)
    out.close()


def test_a_device_is_no_terminal() -> None:
    fd = open_log(os.devnull, which="access")
    assert kind_of(fd) is SinkKind.FILE
    os.close(fd)


def test_a_log_that_cannot_be_opened_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"errorlog {tmp_path}/no/log cannot be opened: No such file")):
        open_log(str(tmp_path / "no" / "log"), which="error")
