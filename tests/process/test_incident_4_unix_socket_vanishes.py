"""Incident 4: a recycled worker unlinked the unix socket, and every client got 502 from the proxy from then on.

gunicorn 19.6, five workers, max_requests=512, `wrk -t10 -c200` through h2o. Here through real nginx and real h2o, over
a unix socket, with that very load. Each docstring says how the test was seen to fail.
"""

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.harness import fetch
from tests.harness.proxies import h2o, nginx
from tests.process.rolling import APP, LONG, Start, ready_pids, variant, wrk

pytestmark = [pytest.mark.process, pytest.mark.external]

NGINX = """
    upstream aserver {{ server unix:{path} fail_timeout=0; keepalive 32; keepalive_timeout 1s; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://aserver;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
        }}
    }}
"""


def _proxy(name: str, directory: Path, path: str) -> AbstractContextManager[int]:
    """In front of the socket; gives its port."""
    if name == "nginx":
        return nginx(directory, NGINX, path=path)
    return h2o(directory, f"[unix:{path}]", "proxy.timeout.keepalive: 500")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["nginx", "h2o"])
def test_incident_4_any_number_of_recycles_behind_a_proxy_costs_nothing(
    server: Start, name: str, tmp_path: Path
) -> None:
    """wrk -t10 -c200 while workers go every 512 requests; then the path is deleted, comes back, and again.

    Fails with os.unlink of the path in Acceptor.close (all 502), and with workers that close idle connections as they
    leave (502 where the proxy was just sending). The proxies let go of idle connections after a second, or a leaving
    worker would wait for them until graceful_timeout and one recycle would be all there is to see.
    """
    path = tmp_path / "a.sock"
    limits = ("--workers", "5", "--max-requests", "512", "--min-lifetime", "0", "--no-access-log")
    running = server(APP, *limits, bind=[f"unix:{path}"])
    inode = path.stat().st_ino
    with _proxy(name, tmp_path, str(path)) as port:
        url = f"http://127.0.0.1:{port}/"
        for round_ in (1, 2):
            before = len(ready_pids(running))
            result = wrk(url, seconds=10 if LONG else 2, connections=200, threads=10)
            went = len(ready_pids(running)) - before
            print(f"{name}: {result.requests} requests, {went} recycles, errors {result.errors or 'none'}")
            assert not result.errors, _errors(tmp_path)
            assert went >= 1, "nobody was recycled"
            if round_ == 1:
                assert path.stat().st_ino == inode
                path.unlink()
                running.wait_log("was deleted by somebody; it is back")
                assert fetch(str(path)).status == 200
    assert running.stop() == 0
    assert not path.exists()


def _errors(directory: Path) -> str:
    file = directory / "error.log"
    return file.read_text()[-2000:] if file.exists() else ""


def test_incident_4_the_backlog_outlives_a_deleted_path(server: Start, tmp_path: Path) -> None:
    """Who is in the queue when the path goes is served; the same socket answers under the path that comes back.

    Fails with a path that is bound anew: the queue of the old socket is nobody's.
    """
    path = tmp_path / "a.sock"
    running = server(APP, bind=[f"unix:{path}"])
    (worker,) = running.workers()
    with ExitStack() as stack:
        blocker = stack.enter_context(running.connect())
        blocker.send(b"GET /block?amount=0.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        waiting = [stack.enter_context(running.connect()) for _ in range(20)]
        path.unlink()
        for connection in waiting:
            assert connection.request("/").status == 200
        assert blocker.read_response().status == 200
    running.wait_log("was deleted by somebody; it is back")
    assert int(fetch(str(path)).body) == worker.pid
    assert running.stop() == 0


@variant
def test_incident_4_a_second_server_on_a_live_path_is_refused(server: Start, tmp_path: Path) -> None:
    """While the first one recycles. Fails with an unlink before the bind."""
    path = tmp_path / "a.sock"
    running = server(APP, "--max-requests", "50", "--min-lifetime", "0", bind=[f"unix:{path}"])
    second = server(APP, bind=[f"unix:{path}"], ready=False)
    assert second.wait_exit() == 5
    for _ in range(120):
        assert fetch(str(path)).status == 200
    running.wait_log("is due: ")
    assert running.stop() == 0
