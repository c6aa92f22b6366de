"""The harness itself: what it promises to notice, it notices."""

import signal
import sys
from pathlib import Path

import pytest

from tests.harness import Load, ServerProcess, server, wait_for, waiting
from tests.harness.server import addresses_in

pytestmark = pytest.mark.process

#: Leaves a child behind that ignores everything but SIGKILL.
ORPHAN = (
    "import signal, subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'import signal\\n"
    "for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\\n"
    'print("orphan is here", flush=True)\\nsignal.pause()\'])\n'
)

#: Answers two requests per connection, then resets or closes.
SHORT_ANSWERS = """
import socket, struct
listener = socket.create_server(("127.0.0.1", 0))
print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
print("the one worker is ready", flush=True)
while True:
    client, _ = listener.accept()
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\no")
    client.close()
"""


def python(source: str) -> ServerProcess:
    return ServerProcess(argv=[sys.executable, "-c", source])


def test_a_survivor_fails_the_test_and_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 1.0)  # how long it may take to go by itself
    running = python(ORPHAN)
    with pytest.raises(AssertionError, match="outlived their server"), running:  # noqa: PT012 - leaving it raises
        running.wait_log("orphan is here", 20)
        assert running.wait_exit(20) == 0
    assert running.family() == []
    assert running.pid not in server.STARTED_SESSIONS


def test_an_exit_instead_of_readiness_is_told_at_once() -> None:
    with python("raise SystemExit('no such setting')") as running, pytest.raises(AssertionError) as caught:
        running.wait_ready()
    assert "exited with 1 instead of serving\nno such setting" in str(caught.value)


def test_a_failure_in_the_block_comes_with_the_log() -> None:
    failing = python("print('a log line')")
    with pytest.raises(ValueError, match="the test's own") as caught, failing as running:  # noqa: PT012
        running.wait_exit()
        raise ValueError("the test's own")
    assert "a log line" in caught.value.__notes__[0]


def test_load_counts_failures_by_kind() -> None:
    with python(SHORT_ANSWERS) as running:
        running.wait_ready()
        with Load(running.where, connections=1) as load:
            wait_for(lambda: load.outcome.failures["closed in the answer"], what="a cut answer to be counted")
            running.signal(signal.SIGKILL)
            wait_for(lambda: load.outcome.failures["refused"], what="a refusal to be counted")
    assert load.outcome.ok >= 1
    with pytest.raises(AssertionError, match="closed in the answer"):
        load.outcome.check()


def test_load_that_hardly_ran_proves_nothing() -> None:
    load = Load(("127.0.0.1", 1))
    with pytest.raises(AssertionError, match="only 0 requests"):
        load.outcome.check()


def test_addresses_are_read_from_the_log(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    log = f"x listening on http://127.0.0.1:81\nx listening on https://[::1]:82\nlistening on unix:{path}\n"
    log += "listening on unix:@name\nGET http://example.org:1/ is not a listener\n"
    found = [(each.scheme, each.where) for each in addresses_in(log)]
    assert found == [("http", ("127.0.0.1", 81)), ("https", ("::1", 82)), ("http", str(path)), ("http", "\0name")]
