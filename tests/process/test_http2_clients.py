"""More real clients of HTTP/2, and planned events under their load. In `make test-more`, as they take their time."""

import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.harness import Notes, ServerProcess, require_tool
from tests.harness.certificates import Authority
from tests.harness.waiting import PATIENCE

pytestmark = [pytest.mark.process]

Start = Callable[..., ServerProcess]

H2C = ("h2c://127.0.0.1:0",)
NODE_CLIENT = Path(__file__).with_name("http2_client.js")


@pytest.mark.external
def test_node(server: Start, tmp_path: Path) -> None:
    """Over TLS and in the clear: bodies, windows both ways, trailers, no stream reset."""
    authority = Authority(tmp_path)
    pair = authority.issue("localhost", "127.0.0.1")
    started = server("tests.apps.grpc:app", *pair.options, bind=["127.0.0.1:0", *H2C])
    for address, more, protocol in zip(started.addresses, ([str(authority.file)], []), ("h2", "h2c"), strict=True):
        command = [require_tool("node"), str(NODE_CLIENT), address.url, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done
        told = json.loads(done.stdout)
        assert told["protocol"] == protocol
        assert told["answers"] == [
            {"body": f"2 {100_000 + n} 127.0.0.1", "status": 200, "type": "application/grpc", "grpc": "0", "code": 0}
            for n in range(20)
        ]


def test_httpx_gets_its_answer_from_a_worker_that_leaves(server: Start, tmp_path: Path) -> None:
    """Its request outlasts the wait for a lull; Python's `h2` breaks off at any GOAWAY.

    Fails without `_begun` in Http2Connection.
    """
    notes = Notes(tmp_path)
    started = server("tests.apps.raw:app", bind=H2C, env=notes.env)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(http1=False, http2=True, timeout=PATIENCE) as client:
            answers.append(client.get(started.url + "/slow?5"))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        started.wait_for(lambda: notes.of("slow"), what="the request to be under way")
        started.signal(signal.SIGHUP)
        started.wait_log(r"generation 2, pid \d+\) is ready")
    finally:
        thread.join()
    (answer,) = answers
    assert (answer.status_code, answer.text, answer.http_version) == (200, "slept", "HTTP/2")
    started.wait_log(r"generation 1, pid \d+\) has left")


@pytest.mark.external
def test_h2load_through_recycles_a_reload_and_the_stop(server: Start) -> None:
    """Each stream that was begun has its answer. h2load calls failed what it would have begun, so answers are counted.

    Fails with one GOAWAY only: then what was on its way is lost, and the server counts more than h2load.
    """
    limits = ("--workers", "2", "--max-requests", "2000", "--min-lifetime", "0")
    started = server("tests.apps.raw:app", *limits, bind=H2C)
    command = [require_tool("h2load"), "-D", "6", "-c", "8", "-m", "10", started.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as load:
        try:
            started.wait_log("has left after")  # recycled
            started.signal(signal.SIGHUP)
            started.wait_log(r"generation 2, pid \d+\) is ready")
            started.wait_log(r"generation 1, pid \d+\) has left after")
            assert started.stop() == 0
            said, _ = load.communicate(timeout=PATIENCE)  # all its connections are gone
        finally:
            load.kill()
    succeeded = re.search(r"(\d+) succeeded", said)
    assert succeeded is not None, said
    assert len(re.findall(r'"GET / HTTP/2" 200 ', started.log)) == int(succeeded[1]) > 0
