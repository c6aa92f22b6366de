"""An application that empties its scope: every request keeps its access line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import RawConnection, ServerProcess

pytestmark = pytest.mark.process

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    how = scope["path"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    if how == "/clear":
        scope.clear()
    elif how == "/pop":
        for name in ("method", "headers", "client", "http_version"):
            scope.pop(name)
    await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize("how", ["/clear", "/pop"])
def test_every_request_has_its_line_whatever_one_does_to_its_scope(
    server: Callable[..., ServerProcess], how: str, tmp_path: Path
) -> None:
    """Three in one turn of the loop. Fails with `self.scope["method"]` in Exchange: none of the three has a line."""
    (tmp_path / "emptier.py").write_text(APP)
    running = server("emptier:app", "--app-dir", str(tmp_path))
    with RawConnection(running.where) as client:
        client.send(
            b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"/first", how.encode(), b"/last"))
        )
        assert [client.read_response().status for _ in range(3)] == [200] * 3
    running.wait_log(r"^127\.0\.0\.1 - - .*GET /last HTTP/1\.1")
    running.wait_log(r"^127\.0\.0\.1 - - .*GET /first HTTP/1\.1")
    running.wait_log(rf'^127\.0\.0\.1 - - .*"GET {how} HTTP/1\.1" 200 2')
    assert "Traceback" not in running.log
    assert running.stop() == 0
