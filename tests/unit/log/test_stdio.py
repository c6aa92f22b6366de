"""Standard output and error: written through, or captured line by line."""

import json
import os
import subprocess
import sys
from pathlib import Path

from aserver.log.stdio import OutputStream
from tests.harness import PATIENCE
from tests.unit.log.starting import Start

CAPTURED = """
import os, subprocess, sys, threading
from types import SimpleNamespace
from aserver.log.opening import open_log
from aserver.log.setup import configure
from aserver.log.stdio import capture_output
settings = SimpleNamespace(loglevel="error", log_format="text", log_config=None)
logs = configure(settings, process="worker 2/g1", error_fd=open_log(sys.argv[1], which="error"))
capture_output([os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for path in sys.argv[2:]])
print("from", "python")
print("half", end="")
print(" a line", file=sys.stdout, flush=True)
print("in trouble", file=sys.stderr)
threading.Thread(target=print, args=("in a thread",)).start()
sys.stdout.buffer.write(b"bytes\\n")
os.write(1, b"from C\\n")
subprocess.run(["/bin/sh", "-c", "echo a child; echo its error >&2"], check=True)
print("unfinished", end="")
sys.stdout.close()
"""


def test_bytes_written_past_the_text_of_a_captured_stream_are_json_too(start: Start, tmp_path: Path) -> None:
    """Whole characters in pieces, what is no UTF-8, and text before it on the same line. Fails with a bare FileIO."""
    start(log_format="json", loglevel="info")
    stream = OutputStream("stdout", 1)
    stream.write("begun ")
    assert stream.buffer.write("\u20ac".encode()[:1]) == 1
    stream.buffer.write(memoryview("\u20ac".encode()[1:] + b" \xff\nsecond\nhal"))
    stream.buffer.flush()
    stream.close()
    records = [json.loads(line) for line in (tmp_path / "error.log").read_text().splitlines()]
    assert [each["message"] for each in records] == ["stdout: begun \u20ac \\xff", "stdout: second", "stdout: hal"]
    assert {each["logger"] for each in records} == {"aserver.output"}


def test_capture_output(tmp_path: Path) -> None:
    """Python's output becomes records at once, all other goes into the pipes, which files stand for."""
    error, out, err = [tmp_path / name for name in ("error.log", "out", "err")]
    done = subprocess.run(
        [sys.executable, "-c", CAPTURED, *map(str, (error, out, err))],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert [line.partition("INFO  ")[2] for line in error.read_text().splitlines() if "worker 2/g1" in line] == [
        "stdout: from python",
        "stdout: half a line",
        "stderr: in trouble",
        "stdout: in a thread",
        "stdout: bytes",
        "stdout: unfinished",
    ]
    assert out.read_text() == "from C\na child\n"
    assert err.read_text() == "its error\n"


def test_a_fork_gets_pipes_of_its_own_but_keeps_what_the_application_has_redirected(tmp_path: Path) -> None:
    """Fails without the comparison: the application's own file got no more lines after the fork."""
    script = (
        "import os, sys; from aserver.log.stdio import capture_output, exchange_output\n"
        "files = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in sys.argv[1:]]\n"
        "capture_output(files[:2]); former = [os.fstat(1), os.fstat(2)]\n"
        "os.dup2(files[4], 2)\n"
        "exchange_output(former, files[2:4]); os.write(1, b'out'); os.write(2, b'own')\n"
    )
    names = [tmp_path / name for name in ("out", "err", "new out", "new err", "own")]
    subprocess.run([sys.executable, "-c", script, *map(str, names)], check=True, timeout=PATIENCE)
    assert [name.read_text() for name in names] == ["", "", "out", "", "own"]


def test_replaced_streams_write_at_once_and_keep_the_encoding() -> None:
    script = (
        "import os, sys; from aserver.log.stdio import replace_stdio\n"
        "print('before', end=' '); replace_stdio(); print('é', end=' '); os.write(1, b'raw ')\n"
        "sys.stdout.buffer.write(b'bytes'); print('error', file=sys.stderr); os._exit(0)\n"
    )
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, env=environ, timeout=PATIENCE
    )
    assert done.stdout == b"before \xe9 raw bytes"
    assert done.stderr == b"error\n"


def test_replacing_streams_spares_closed_ones_and_the_apps_own() -> None:
    script = (
        "import io, sys; from aserver.log.stdio import replace_stdio\n"
        "mine = sys.stdout = io.StringIO(); replace_stdio(); assert sys.stdout is mine; assert sys.stderr is None\n"
    )
    subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", script], check=True, timeout=PATIENCE
    )
