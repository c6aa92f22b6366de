"""HTTP/2 as a real browser speaks it: a page, and a WebSocket on a stream of the same connection (RFC 8441)."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ServerProcess, wait_for
from tests.harness.browser import NAMES, Browser
from tests.harness.certificates import Authority

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not os.environ.get("TEST_DASHBOARD"), reason="`make dashboard` runs these"),
]

PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)

#: Sends a text and 300,000 bytes, and keeps what comes back.
SOCKET = """
  window.told = [];
  window.socket = new WebSocket(location.href.replace('https', 'wss'));
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => { socket.send('hello'); socket.send(new Uint8Array(300000)); };
  socket.onmessage = ({data}) => told.push(typeof data === 'string' ? data : data.byteLength);
  socket.onclose = ({code}) => told.push(`closed with ${code}`);
"""


@pytest.fixture
def page() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    with Browser(PROGRAM) as browser:
        browser.call("Security.setIgnoreCertificateErrors", ignore=True)
        yield browser


def test_a_page_and_a_websocket_over_http_2(page: Browser, tmp_path: Path) -> None:
    """And the stop closes the WebSocket with 1012. Fails without ENABLE_CONNECT_PROTOCOL: then it is HTTP/1.1."""
    pair = Authority(tmp_path).issue("localhost", "127.0.0.1")
    with ServerProcess("tests.apps.ws_echo:app", *pair.options) as running:
        running.wait_ready()
        page.show(running.url + "/", 800, 600)
        page.wait("document.body.innerText === 'http'", "the page")
        assert page.ask("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        page.ask(SOCKET)
        page.wait("told.length === 2", "the echoes")
        assert page.ask("told.join()") == "hello,300000"
        wait_for(lambda: '"GET / HTTP/2" 200' in running.log, what="the page's line")
        assert running.stop() == 0
        page.wait("told.length === 3", "the close")
        assert page.ask("told[2]") == "closed with 1012"
        assert '"CONNECT / HTTP/2" 200' in running.log
        assert "HTTP/1.1" not in running.log
